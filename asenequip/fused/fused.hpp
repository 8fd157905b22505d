// Building blocks of the fused evaluation of an Allegro potential on a CPU: one centre at a time, everything in cache.
//
// The text that `asenequip.fused.source` generates defines, before it includes this file:
//   T      float or double
//   LANES  elements of T in a vector
//   DEGREE degree of the radial polynomials
// Index letters: z edge, i component of the harmonics, r irrep, u channel, h hidden unit. Channels are the fastest axis and
// are padded with zeros to whole vectors; rows are edges.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

typedef T V __attribute__((vector_size(sizeof(T) * LANES), aligned(sizeof(T))));  // may lie at any element
#if defined(FUSED_DOUBLE)
typedef int64_t VI __attribute__((vector_size(8 * LANES)));
#else
typedef int32_t VI __attribute__((vector_size(4 * LANES)));
#endif

#if defined(__clang__)
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (VI){__VA_ARGS__})
#endif
#define INLINE static inline __attribute__((always_inline))

INLINE V load(const T* p) { return *reinterpret_cast<const V*>(p); }
INLINE void store(T* p, V v) { *reinterpret_cast<V*>(p) = v; }
INLINE V all(T x) { return V{} + x; }

// ---- dense products: C[rows][N] (+)= A[rows][K] B[K][N] ---------------------------------------------------------------

template <int ROWS, int COLS, int K>
INLINE void tile(const T* A, int lda, const T* B, int ldb, T* C, int ldc, bool add) {
  V c[ROWS][COLS];
  for (int r = 0; r < ROWS; ++r)
    for (int j = 0; j < COLS; ++j) c[r][j] = add ? load(C + r * ldc + j * LANES) : V{};
  for (int k = 0; k < K; ++k) {
    V b[COLS];
    for (int j = 0; j < COLS; ++j) b[j] = load(B + k * ldb + j * LANES);
    for (int r = 0; r < ROWS; ++r) {
      const V a = all(A[r * lda + k]);
      for (int j = 0; j < COLS; ++j) c[r][j] += a * b[j];
    }
  }
  for (int r = 0; r < ROWS; ++r)
    for (int j = 0; j < COLS; ++j) store(C + r * ldc + j * LANES, c[r][j]);
}

template <int COLS, int K>
static void strip(int rows, const T* A, int lda, const T* B, int ldb, T* C, int ldc, bool add) {
  constexpr int BLOCK = COLS == 4 ? 6 : 8;  // sums of as many rows stay in registers
  int r = 0;
  for (; r + BLOCK <= rows; r += BLOCK) tile<BLOCK, COLS, K>(A + r * lda, lda, B, ldb, C + r * ldc, ldc, add);
  for (; r + 2 <= rows; r += 2) tile<2, COLS, K>(A + r * lda, lda, B, ldb, C + r * ldc, ldc, add);
  if (r < rows) tile<1, COLS, K>(A + r * lda, lda, B, ldb, C + r * ldc, ldc, add);
}

template <int K, int N>
static void product(int rows, const T* A, int lda, const T* B, T* C, int ldc, bool add) {
  constexpr int WHOLE = N / (4 * LANES), REST = (N - WHOLE * 4 * LANES) / LANES;
  for (int s = 0; s < WHOLE; ++s) strip<4, K>(rows, A, lda, B + s * 4 * LANES, N, C + s * 4 * LANES, ldc, add);
  constexpr int at = WHOLE * 4 * LANES;
  if constexpr (REST > 0) strip<REST, K>(rows, A, lda, B + at, N, C + at, ldc, add);
}

// ---- the nonlinearity --------------------------------------------------------------------------------------------------

INLINE V clamp(V x, T low, T high) {
  x = x < all(low) ? all(low) : x;
  return x > all(high) ? all(high) : x;
}

#if defined(FUSED_DOUBLE)
INLINE V exponential(V x) {
  V y;
  for (int k = 0; k < LANES; ++k) y[k] = std::exp(x[k]);
  return y;
}
#else
INLINE V exponential(V x) {  // relative error about 1e-7 on [-87, 87]; Taylor after reduction to |r| <= ln(2)/2
  x = clamp(x, -87.0f, 87.0f);
  const V shifted = x * 1.44269504088896341f + 12582912.0f;  // 1.5 * 2^23: rounds to the nearest integer
  const V whole = shifted - 12582912.0f;
  const V r = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;
  V p = all(1.0f / 5040.0f);
  p = p * r + 1.0f / 720.0f;
  p = p * r + 1.0f / 120.0f;
  p = p * r + 1.0f / 24.0f;
  p = p * r + 1.0f / 6.0f;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  return p * (V)(((VI)shifted - 0x4B400000 + 127) << 23);
}
#endif

// y = silu(x) = x sigma(x), slope = sigma (1 + x (1 - sigma)); may work in place
template <int N>
static void silu(int rows, const T* x, int ldx, T* y, T* slope, int ldy) {
  for (int z = 0; z < rows; ++z)
    for (int n = 0; n < N; n += LANES) {
      const V a = load(x + z * ldx + n);
      const V s = T(1) / (T(1) + exponential(-a));
      const V v = a * s;
      store(y + z * ldy + n, v);
      store(slope + z * ldy + n, s + v * (T(1) - s));
    }
}

template <int N>
static void scale_by(int rows, T* g, int ldg, const T* slope, int lds) {
  for (int z = 0; z < rows; ++z)
    for (int n = 0; n < N; n += LANES) store(g + z * ldg + n, load(g + z * ldg + n) * load(slope + z * lds + n));
}

// ---- sums over lanes ---------------------------------------------------------------------------------------------------

INLINE T sum(V v) {
  T s = 0;
  for (int k = 0; k < LANES; ++k) s += v[k];
  return s;
}

// ---- the Clebsch-Gordan chain of one centre: out[i] = sum C W[p] G[j] v[m] -----------------------------------------------

struct Nonzero {
  int16_t i, j, m, p;
  T c;
};

struct Couplings {  // of one layer
  const Nonzero* nonzeros;
  int64_t count;
};

template <int U>
static void chain(Couplings couplings, const T* W, const T* G, const T* v, int dim_out, T* out) {
  std::fill(out, out + dim_out * U, T(0));
  for (int64_t k = 0; k < couplings.count; ++k) {
    const Nonzero n = couplings.nonzeros[k];
    for (int u = 0; u < U; u += LANES)
      store(out + n.i * U + u, load(out + n.i * U + u) + n.c * load(W + n.p * U + u) * load(G + n.j * U + u) * load(v + n.m * U + u));
  }
}

template <int U>
static void chain_back(Couplings couplings, const T* W, const T* G, const T* v, const T* g, T* gG, T* gv) {
  for (int64_t k = 0; k < couplings.count; ++k) {
    const Nonzero n = couplings.nonzeros[k];
    for (int u = 0; u < U; u += LANES) {
      const V t = n.c * load(W + n.p * U + u) * load(g + n.i * U + u);
      store(gG + n.j * U + u, load(gG + n.j * U + u) + t * load(v + n.m * U + u));
      if (gv) store(gv + n.m * U + u, load(gv + n.m * U + u) + t * load(G + n.j * U + u));
    }
  }
}

// ---- contractions between the edges of a centre and its operators ---------------------------------------------------------
// Y[i * stride + z]: component i of edge z.

// out[i][n] = sum_z w[z][n] Y[z][i] for the components [first, first + COUNT) of one irrep
template <int COUNT, int N>
static void accumulate(int rows, const T* w, int ldw, const T* Y, int stride, T* out) {
  constexpr int PART = COUNT * (N / LANES) <= 20 ? N / LANES : (COUNT <= 9 ? 2 : 1);
  for (int n = 0; n < N; n += PART * LANES) {
    V acc[COUNT][PART];
    const int parts = std::min(PART, (N - n) / LANES);
    for (int i = 0; i < COUNT; ++i)
      for (int k = 0; k < PART; ++k) acc[i][k] = V{};
    for (int z = 0; z < rows; ++z)
      for (int k = 0; k < PART; ++k) {
        if (k >= parts) break;
        const V x = load(w + z * ldw + n + k * LANES);
        for (int i = 0; i < COUNT; ++i) acc[i][k] += x * Y[i * stride + z];
      }
    for (int i = 0; i < COUNT; ++i)
      for (int k = 0; k < parts; ++k) store(out + i * N + n + k * LANES, acc[i][k]);
  }
}

// g[z][n] += sum_i Y[z][i] m[i][n]
template <int D, int N>
static void spread(int rows, const T* m, const T* Y, int stride, T* g, int ldg) {
  for (int z = 0; z < rows; ++z) {
    V acc[N / LANES];
    for (int k = 0; k < N / LANES; ++k) acc[k] = load(g + z * ldg + k * LANES);
    for (int i = 0; i < D; ++i) {
      const V y = all(Y[i * stride + z]);
      for (int k = 0; k < N / LANES; ++k) acc[k] += y * load(m + i * N + k * LANES);
    }
    for (int k = 0; k < N / LANES; ++k) store(g + z * ldg + k * LANES, acc[k]);
  }
}

// ---- the radial tables: polynomials in the local coordinate of an interval, coefficient by coefficient -------------------

INLINE V polynomial(const T* c, int width, T t) {
  V p = load(c + DEGREE * width);
  for (int k = DEGREE - 1; k >= 0; --k) p = p * t + load(c + k * width);
  return p;
}
INLINE V polynomial_slope(const T* c, int width, T t) {
  V p = load(c + DEGREE * width) * T(DEGREE);
  for (int k = DEGREE - 1; k >= 1; --k) p = p * t + load(c + k * width) * T(k);
  return p;
}
