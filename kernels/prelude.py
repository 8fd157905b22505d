"""The small layer under the generated bodies: ``V``, ``LOAD``, ``STORE`` and ``REDUCE`` on a CPU and on a GPU.

A body handles one tile of channels. On a CPU, ``V`` is a few SIMD registers of consecutive channels; on a GPU, one
channel per thread. Everything else in a body (loops, products, Clebsch-Gordan literals) is the same text.
"""

from __future__ import annotations

CPU_WIDTH = r"""
#include <cstdint>
typedef int64_t I;
#if defined(__AVX512F__)
#include <immintrin.h>
#define BYTES 64
#elif defined(__AVX__)
#define BYTES 32
#else
#define BYTES 16
#endif
"""

CPU = r"""
#define INLINE inline __attribute__((always_inline))
typedef T vec __attribute__((vector_size(BYTES)));
typedef T loose __attribute__((vector_size(BYTES), aligned(sizeof(T)), may_alias));
constexpr int WIDTH = BYTES / int(sizeof(T));

// K registers of consecutive channels, as a binary tree so that no loop is left to unroll.
template <int K> struct Lanes { Lanes<K / 2> lo, hi; };
template <> struct Lanes<1> { vec q; };
typedef Lanes<1> L1;
static INLINE L1 operator+(const L1& a, const L1& b) { return {a.q + b.q}; }
static INLINE L1 operator*(const L1& a, const L1& b) { return {a.q * b.q}; }
static INLINE L1 operator*(const L1& a, T s) { return {a.q * s}; }
#define MANY template <int K> static INLINE Lanes<K>
MANY operator+(const Lanes<K>& a, const Lanes<K>& b) { return {a.lo + b.lo, a.hi + b.hi}; }
MANY operator*(const Lanes<K>& a, const Lanes<K>& b) { return {a.lo * b.lo, a.hi * b.hi}; }
MANY operator*(const Lanes<K>& a, T s) { return {a.lo * s, a.hi * s}; }
static INLINE L1 fused(const L1& a, const L1& b, const L1& c) { return {a.q * b.q + c.q}; }
static INLINE L1 fused(const L1& a, T s, const L1& c) { return {a.q * s + c.q}; }
MANY fused(const Lanes<K>& a, const Lanes<K>& b, const Lanes<K>& c) {
  return {fused(a.lo, b.lo, c.lo), fused(a.hi, b.hi, c.hi)};
}
MANY fused(const Lanes<K>& a, T s, const Lanes<K>& c) { return {fused(a.lo, s, c.lo), fused(a.hi, s, c.hi)}; }

template <int K> struct Memory {
  typedef Memory<K / 2> Half;
  static INLINE Lanes<K> load(const T* p) { return {Half::load(p), Half::load(p + K / 2 * WIDTH)}; }
  static INLINE void store(T* p, const Lanes<K>& v) { Half::store(p, v.lo); Half::store(p + K / 2 * WIDTH, v.hi); }
  static INLINE Lanes<K> zero() { return {Half::zero(), Half::zero()}; }
  static INLINE vec fold(const Lanes<K>& v) { return Half::fold(v.lo) + Half::fold(v.hi); }
};
template <> struct Memory<1> {
  static INLINE L1 load(const T* p) { return {(vec) * (const loose*)p}; }
  static INLINE void store(T* p, const L1& v) { *(loose*)p = v.q; }
  static INLINE L1 zero() { return {vec{}}; }
  static INLINE vec fold(const L1& v) { return v.q; }
};
// The last channels, fewer than a register holds; the other lanes read as zero.
#if defined(__AVX512F__)
static INLINE __m512 masked(const float* p, I n) { return _mm512_maskz_loadu_ps(__mmask16((1u << n) - 1), p); }
static INLINE __m512d masked(const double* p, I n) { return _mm512_maskz_loadu_pd(__mmask8((1u << n) - 1), p); }
static INLINE void masked(float* p, I n, __m512 v) { _mm512_mask_storeu_ps(p, __mmask16((1u << n) - 1), v); }
static INLINE void masked(double* p, I n, __m512d v) { _mm512_mask_storeu_pd(p, __mmask8((1u << n) - 1), v); }
static INLINE L1 partial_load(const T* p, I n) { return {(vec)masked(p, n)}; }
#if SINGLE
static INLINE void partial_store(T* p, I n, const L1& v) { masked(p, n, (__m512)v.q); }
#else
static INLINE void partial_store(T* p, I n, const L1& v) { masked(p, n, (__m512d)v.q); }
#endif
#else
static INLINE L1 partial_load(const T* p, I n) { L1 v = {vec{}}; for (I k = 0; k < n; ++k) v.q[k] = p[k]; return v; }
static INLINE void partial_store(T* p, I n, const L1& v) { for (I k = 0; k < n; ++k) p[k] = v.q[k]; }
#endif
template <int K, bool FULL> static INLINE Lanes<K> load(const T* p, I n) {
  if constexpr (FULL) return Memory<K>::load(p); else return partial_load(p, n);
}
template <int K, bool FULL> static INLINE void store(T* p, I n, const Lanes<K>& v) {
  if constexpr (FULL) Memory<K>::store(p, v); else partial_store(p, n, v);
}
#if BFLOAT16
typedef uint16_t S;
template <int K, bool FULL> static INLINE Lanes<K> load(const S* p, I n) {
  alignas(64) uint32_t bits[K * WIDTH];
  for (int k = 0; k < K * WIDTH; ++k) bits[k] = FULL || k < n ? uint32_t(p[k]) << 16 : 0u;
  return Memory<K>::load((const T*)bits);
}
template <int K, bool FULL> static INLINE void store(S* p, I n, const Lanes<K>& v) {
  alignas(64) T values[K * WIDTH];
  Memory<K>::store(values, v);
  for (int k = 0; k < K * WIDTH; ++k) {
    uint32_t b;
    __builtin_memcpy(&b, values + k, 4);
    const S rounded = values[k] != values[k] ? S(0x7fc0) : S((b + 0x7fffu + ((b >> 16) & 1u)) >> 16);
    if (FULL || k < n) p[k] = rounded;
  }
}
#else
typedef T S;
#endif

// Sums over channels, D registers at a time: pairs are folded inside 128-bit parts, then the parts are added.
#if (defined(__clang__) || __GNUC__ >= 12) && (defined(__AVX__) || BYTES == 16)
#define SHUFFLE 1
#endif
template <int D, int K> static INLINE void sum_channels(const Lanes<K>* part, T* out, bool fresh) {
#if SHUFFLE
  constexpr int G = 16 / int(sizeof(T));
  typedef T small __attribute__((vector_size(16)));
#pragma GCC unroll 32
  for (int d = 0; d < D; d += G) {
    vec f[G];
#pragma GCC unroll 4
    for (int k = 0; k < G; ++k) f[k] = d + k < D ? Memory<K>::fold(part[d + k < D ? d + k : 0]) : vec{};
    vec a = EVEN(f[0], f[1]) + ODD(f[0], f[1]);
    if constexpr (G == 4) {
      const vec b = EVEN(f[2], f[3]) + ODD(f[2], f[3]);
      a = EVEN(a, b) + ODD(a, b);
    }
    alignas(64) T all[WIDTH];
    *(vec*)all = a;
    small total = *(small*)all;
#pragma GCC unroll 4
    for (int k = G; k < WIDTH; k += G) total = total + *(small*)(all + k);
    if (d + G <= D) {
      typedef T parts __attribute__((vector_size(16), aligned(sizeof(T)), may_alias));
      *(parts*)(out + d) = fresh ? total : total + *(parts*)(out + d);
    } else {
#pragma GCC unroll 4
      for (int k = 0; k < G; ++k) if (d + k < D) out[d + k] = fresh ? total[k] : out[d + k] + total[k];
    }
  }
#else
  for (int d = 0; d < D; ++d) {
    const vec f = Memory<K>::fold(part[d]);
    T total = 0;
    for (int k = 0; k < WIDTH; ++k) total += f[k];
    out[d] = fresh ? total : out[d] + total;
  }
#endif
}

#if WIDEST == 1
// One register is a plain vector: long straight-line bodies compile much faster without the wrapper.
#define V vec
#define LOAD(p) load<K, FULL>(p, count).q
#define STORE(p, v) store<K, FULL>(p, count, L1{v})
#define ZERO vec{}
#define FUSED(a, b, c) ((a) * (b) + (c))
#else
#define V Lanes<K>
#define LOAD(p) load<K, FULL>(p, count)
#define STORE(p, v) store<K, FULL>(p, count, v)
#define ZERO Memory<K>::zero()
#define FUSED(a, b, c) fused(a, b, c)
#endif
#define REDUCE(D, slot, part, out) sum_channels<D, K>(part, (out) + z * D, fresh)
#define EDGES
#define AGAIN(u) u
#define TILE(name) template <int K, bool FULL> static void name( \
  const Args& args, const I n, const I stop, const I chunk, const I u, const I count, const bool fresh)

"""

CPU_TILES = r"""
static void tiles(const Args& args, I n, I stop, I chunk) {
  const I U = args.U;
  I u = 0;
  if constexpr (WIDEST >= 4)
    for (; u + 4 * WIDTH <= U; u += 4 * WIDTH) tile<4, true>(args, n, stop, chunk, u, 0, u == 0);
  if constexpr (WIDEST >= 2)
    for (; u + 2 * WIDTH <= U; u += 2 * WIDTH) tile<2, true>(args, n, stop, chunk, u, 0, u == 0);
#if WIDEST > 1 || !defined(__AVX512F__)
  for (; u + WIDTH <= U; u += WIDTH) tile<1, true>(args, n, stop, chunk, u, 0, u == 0);
#endif
  // Masked loads cost no more than full ones, so with AVX-512 long bodies are compiled only once.
  for (; u < U; u += WIDTH) tile<1, false>(args, n, stop, chunk, u, U - u < WIDTH ? U - u : WIDTH, u == 0);
}
"""

CPU_EDGE_MAIN = r"""
// Work is split by edges, at atom boundaries: an atom belongs to one thread, so results do not depend on their number.
extern "C" int run(const void* const* in, void* const* out, const I* ptr, I n, I z, I U, int threads) {
  if (ptr[0] != 0 || ptr[n] != z) return 1;
  const Args args = ARGS;
  I cut[MOST + 1];
  if (threads > MOST) threads = MOST;
  for (int t = 0; t <= threads; ++t) {
    const I goal = z / threads * t;
    I lo = 0, hi = n;
    while (lo < hi) { const I mid = (lo + hi) / 2; if (ptr[mid] < goal) lo = mid + 1; else hi = mid; }
    cut[t] = t == 0 ? 0 : t == threads ? n : lo;
  }
#pragma omp parallel for num_threads(threads) schedule(static, 1) if (threads > 1)
  for (int t = 0; t < threads; ++t)
    for (I a = cut[t]; a < cut[t + 1]; ++a) tiles(args, a, a + 1, 0);
  return 0;
}
"""

CPU_CHAIN_MAIN = r"""
// Atoms go in chunks of fixed length: sums over atoms are kept per chunk, whatever the number of threads.
extern "C" int run(const void* const* in, void* const* out, const I*, I n, I length, I U, int threads) {
  const Args args = ARGS;
  const I chunks = (n + length - 1) / length;
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
  for (I c = 0; c < chunks; ++c) tiles(args, c * length, (c + 1) * length < n ? (c + 1) * length : n, c);
  return 0;
}
"""


def shuffles(size: int) -> str:
    """EVEN and ODD for a scalar of ``size`` bytes: the even (odd) entries of two registers, per 128 bits."""
    group = 16 // size
    lines = []
    for number, width in enumerate((64, 32, 16)):
        lanes = width // size
        lines.append(f"#{'if' if number == 0 else 'elif'} BYTES == {width}")
        for name, first in (("EVEN", 0), ("ODD", 1)):
            picks = [
                str(part + side + k)
                for part in range(0, lanes, group)
                for side in (0, lanes)
                for k in range(first, group, 2)
            ]
            lines.append(f"#define {name}(a, b) __builtin_shufflevector(a, b, {', '.join(picks)})")
    return "\n".join([*lines, "#endif"])


CUDA = r"""
typedef long long I;
#define WARP 0xffffffffu
#if BFLOAT16
typedef unsigned short S;
__device__ __forceinline__ T widen(S bits) { return __uint_as_float((unsigned)bits << 16); }
__device__ __forceinline__ S narrow(T value) {
  const unsigned b = __float_as_uint(value);
  return value != value ? S(0x7fc0) : S((b + 0x7fffu + ((b >> 16) & 1u)) >> 16);
}
#else
typedef T S;
#endif
__device__ __forceinline__ T load(const T* p, bool active) { return active ? *p : T(0); }
__device__ __forceinline__ void store(T* p, T v, bool active) { if (active) *p = v; }
#if BFLOAT16
__device__ __forceinline__ T load(const S* p, bool active) { return active ? widen(*p) : T(0); }
__device__ __forceinline__ void store(S* p, T v, bool active) { if (active) *p = narrow(v); }
#endif
__device__ __forceinline__ T fused(T a, T b, T c) { return a * b + c; }
// The same number, unknown to the compiler: what is loaded with it is not kept in registers since an earlier load.
__device__ __forceinline__ I again(I u) { asm volatile("" : "+l"(u)); return u; }

#define V T
#define LOAD(p) load(p, active)
#define STORE(p, v) store(p, v, active)
#define ZERO T(0)
#define FUSED(a, b, c) fused(a, b, c)
#define EDGES _Pragma("unroll 2")
#define AGAIN(u) again(u)
#define TILE(name) __device__ __forceinline__ void name( \
  const Args& args, const I n, const I stop, const I chunk, const I u, const bool active, const bool fresh)
"""

CUDA_REDUCE = r"""
// Sums over channels: within a warp by halving the set of sums each lane holds, across warps through shared memory, for
// BATCH edges at a time. Every sum is taken in one fixed order: no atomics.
__shared__ T parts[SLOTS][BATCH][MOST][LONGEST];

template <int N, int M> struct Scatter {
  static __device__ __forceinline__ void run(T (&p)[M], int lane) {
    const bool upper = lane & (N / 2);
#pragma unroll
    for (int k = 0; k < N / 2; ++k) {
      const T give = upper ? p[k] : p[k + N / 2];
      const T keep = upper ? p[k + N / 2] : p[k];
      p[k] = keep + __shfl_xor_sync(WARP, give, N / 2);
    }
    Scatter<N / 2, M>::run(p, lane);
  }
};
template <int M> struct Scatter<1, M> {
  static __device__ __forceinline__ void run(T (&)[M], int) {}
};

template <int D> __device__ __forceinline__ void sum_channels(
  int slot, const T (&part)[D], T* out, I z, I begin, I end, bool fresh) {
  const int warps = blockDim.x / 32, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int at = int((z - begin) % BATCH);
  constexpr int M = D <= 1 ? 1 : D <= 4 ? 4 : D <= 16 ? 16 : 32;
  T p[M];
#pragma unroll
  for (int d = 0; d < M; ++d) p[d] = d < D ? part[d < D ? d : 0] : T(0);
  Scatter<M, M>::run(p, lane);
#pragma unroll
  for (int far = M; far < 32; far *= 2) p[0] += __shfl_xor_sync(WARP, p[0], far);
  if (lane < D) parts[slot][at][threadIdx.y * warps + warp][lane] = p[0];
  if (at != BATCH - 1 && z != end - 1) return;
  if (warps == 1) __syncwarp(); else __syncthreads();
  for (int t = threadIdx.x; t < (at + 1) * D; t += blockDim.x) {
    T total = T(0);
    for (int w = 0; w < warps; ++w) total += parts[slot][t / D][threadIdx.y * warps + w][t % D];
    T* q = out + (z - at) * D + t;
    *q = fresh ? total : *q + total;
  }
  if (warps == 1) __syncwarp(); else __syncthreads();
}
#define REDUCE(D, slot, part, out) sum_channels<D>(slot, part, out, z, begin, end, fresh)
"""

CUDA_EDGE_MAIN = r"""
// One block row per atom (blockDim.y atoms when the channels fit in a warp), threads along the channels.
extern "C" __global__ void __launch_bounds__(32 * MOST) run(
  PARAMETERS, const I* __restrict__ ptr, const I atoms, const I U) {
  const Args args = ARGS;
  for (I n = (I)blockIdx.x * blockDim.y + threadIdx.y; n < atoms; n += (I)gridDim.x * blockDim.y)
    for (I base = 0; base < U; base += blockDim.x)
      tile(args, n, n + 1, 0, base + threadIdx.x, base + threadIdx.x < U, base == 0);
}
"""

CUDA_CHAIN_MAIN = r"""
// A thread per (chunk of atoms, channel).
extern "C" __global__ void __launch_bounds__(128) run(
  PARAMETERS, const I length, const I atoms, const I U) {
  const Args args = ARGS;
  const I chunks = (atoms + length - 1) / length;
  for (I t = (I)blockIdx.x * blockDim.x + threadIdx.x; t < chunks * U; t += (I)gridDim.x * blockDim.x) {
    const I c = t / U;
    tile(args, c * length, (c + 1) * length < atoms ? (c + 1) * length : atoms, c, t % U, true, true);
  }
}
"""
