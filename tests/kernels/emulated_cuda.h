// Runs a CUDA kernel on the host: a thread per CUDA thread, blocks one after the other, barriers for the synchronising calls.
// Slow and faithful to program order; it proves indexing, reductions and tails, not speed or the memory model.
#include <barrier>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#define __device__
#define __global__
#define __shared__ static
#define __forceinline__ inline
#define __launch_bounds__(most)

struct Dim { unsigned x, y, z; };
static thread_local Dim threadIdx;
static Dim blockIdx, blockDim, gridDim;

namespace emulation {
typedef std::barrier<> Barrier;
static std::unique_ptr<Barrier> block;
static std::vector<std::unique_ptr<Barrier>> warps;
alignas(16) static char exchange[64][32][8];
static int linear() { return int(threadIdx.y * blockDim.x + threadIdx.x); }
}  // namespace emulation

template <class X> X __shfl_xor_sync(unsigned, X value, int mask) {
  const int warp = emulation::linear() / 32, lane = emulation::linear() % 32;
  std::memcpy(emulation::exchange[warp][lane], &value, sizeof(X));
  emulation::warps[warp]->arrive_and_wait();
  X other;
  std::memcpy(&other, emulation::exchange[warp][lane ^ mask], sizeof(X));
  emulation::warps[warp]->arrive_and_wait();
  return other;
}
static void __syncwarp() { emulation::warps[emulation::linear() / 32]->arrive_and_wait(); }
static void __syncthreads() { emulation::block->arrive_and_wait(); }
static float __uint_as_float(unsigned bits) { float f; std::memcpy(&f, &bits, 4); return f; }
static unsigned __float_as_uint(float f) { unsigned bits; std::memcpy(&bits, &f, 4); return bits; }

template <class Kernel> void emulate(Dim grid, Dim threads, Kernel kernel) {
  gridDim = grid;
  blockDim = threads;
  const int count = int(threads.x * threads.y);
  for (unsigned b = 0; b < grid.x; ++b) {
    blockIdx = {b, 0, 0};
    emulation::block = std::make_unique<emulation::Barrier>(count);
    emulation::warps.clear();
    for (int w = 0; w < count / 32; ++w) emulation::warps.push_back(std::make_unique<emulation::Barrier>(32));
    std::vector<std::thread> running;
    for (int t = 0; t < count; ++t)
      running.emplace_back([=] {
        threadIdx = {unsigned(t) % threads.x, unsigned(t) / threads.x, 0};
        kernel();
      });
    for (auto& thread : running) thread.join();
  }
}
