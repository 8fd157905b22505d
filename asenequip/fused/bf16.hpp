// Dense products with operands rounded to bfloat16 and sums in float32, for processors with AVX512-BF16. Included for the
// precision "bfloat16" only. The matrix comes packed: the entries of rows 2k and 2k+1 of a column stand side by side.

#include <immintrin.h>

template <int ROWS, int COLS, int K>
INLINE void tile(const uint16_t (*A)[K], const uint16_t* B, int ldb, T* C, int ldc, bool add) {
  __m512 c[ROWS][COLS];
  for (int r = 0; r < ROWS; ++r)
    for (int j = 0; j < COLS; ++j) c[r][j] = add ? _mm512_loadu_ps(C + r * ldc + j * LANES) : _mm512_setzero_ps();
  for (int k = 0; k < K; k += 2) {
    __m512bh b[COLS];
    for (int j = 0; j < COLS; ++j) b[j] = (__m512bh)_mm512_loadu_si512(B + k * ldb + 2 * j * LANES);
    for (int r = 0; r < ROWS; ++r) {
      int32_t pair;
      std::memcpy(&pair, &A[r][k], 4);
      const __m512bh a = (__m512bh)_mm512_set1_epi32(pair);
      for (int j = 0; j < COLS; ++j) c[r][j] = _mm512_dpbf16_ps(c[r][j], a, b[j]);
    }
  }
  for (int r = 0; r < ROWS; ++r)
    for (int j = 0; j < COLS; ++j) _mm512_storeu_ps(C + r * ldc + j * LANES, c[r][j]);
}

template <int ROWS, int K, int N>
INLINE void rows_of_product(const T* A, int lda, const uint16_t* B, T* C, int ldc, bool add) {
  alignas(64) uint16_t rounded[ROWS][K];
  for (int r = 0; r < ROWS; ++r)
    for (int k = 0; k < K; k += LANES)
      _mm256_storeu_si256((__m256i*)(rounded[r] + k), (__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(A + r * lda + k)));
  constexpr int WHOLE = N / (4 * LANES), REST = (N - WHOLE * 4 * LANES) / LANES, AT = WHOLE * 4 * LANES;
  for (int s = 0; s < WHOLE; ++s)
    tile<ROWS, 4, K>(rounded, B + 2 * s * 4 * LANES, N, C + s * 4 * LANES, ldc, add);
  if constexpr (REST > 0) tile<ROWS, REST, K>(rounded, B + 2 * AT, N, C + AT, ldc, add);
}

template <int K, int N>
static void product(int rows, const T* A, int lda, const uint16_t* B, T* C, int ldc, bool add) {
  constexpr int BLOCK = 6;
  int r = 0;
  for (; r + BLOCK <= rows; r += BLOCK) rows_of_product<BLOCK, K, N>(A + r * lda, lda, B, C + r * ldc, ldc, add);
  for (; r + 2 <= rows; r += 2) rows_of_product<2, K, N>(A + r * lda, lda, B, C + r * ldc, ldc, add);
  if (r < rows) rows_of_product<1, K, N>(A + r * lda, lda, B, C + r * ldc, ldc, add);
}
