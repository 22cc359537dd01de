#pragma once

// A block of a Hopper kernel on the host: each thread is a fiber, and what the kernel asks of the
// chip is done as its manual and measurements say: mbarriers that count arrivals and bytes, copies
// of boxes that land some time later, wgmma on swizzled shared memory that is read when it is
// waited for, shuffles and barriers that threads meet in. Fibers and copies take turns at random.
// Built with this folder before the root, so that it stands in for the kernels' PTX.

#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <cuda_runtime_api.h>
#include <vector_functions.h>

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#undef __launch_bounds__
#define __launch_bounds__(...)
#define __CUDA_ARCH_FEAT_SM90_ALL 1

namespace attn::gpu {

struct EmulatedIndex {
  unsigned x = 0, y = 0, z = 0;
};
extern EmulatedIndex threadIdx;
extern EmulatedIndex blockIdx;
extern EmulatedIndex gridDim;
/// The block's shared memory.
inline constexpr std::size_t kEmulatedShared = 227 * 1024;
extern unsigned char memory[];

namespace emulator {

/// Threads that come last whenever another can go: a barrier that has gone two phases further looks
/// to them as if it had not moved. Without any: one, drawn.
struct Starved {
  int first = 0;
  int count = 0;
  int rank = -1;  ///< of this block of a cluster alone
};

/// Blocks, and how many of them along z run at the same time, as those of a cluster do: they have
/// `shared` bytes of shared memory each.
inline constexpr std::size_t kClusterShared = 16 * 1024;
struct Grid {
  int x = 1;
  int z = 1;
  int cluster = 1;
  int y = 1;
  std::size_t shared = kClusterShared;
};

/// Runs `kernel` in every thread of every block, blocks or clusters one after the other. "" or what
/// went wrong: threads that wait for ever, a barrier with more arrivals than it counts.
std::string run(Grid grid, int threads, std::uint64_t seed, Starved starved,
                const std::function<void()>& kernel);
inline std::string run(int blocks, int threads, std::uint64_t seed, Starved starved,
                       const std::function<void()>& kernel) {
  return run(Grid{blocks, 1, 1}, threads, seed, starved, kernel);
}

/// What the grid before leaves: done when the first thread waits for it.
extern std::function<void()> previous_grid;
void wait_for_previous_grid();

void cluster_arrive(bool releases);
void cluster_wait();
/// Of shared memory of block `rank` of the cluster; for cluster_store alone.
std::uint32_t cluster_address(std::uint32_t shared, unsigned rank);
/// Seen there once this thread has arrived at the cluster's barrier, releasing.
void cluster_store(std::uint32_t address, const void* from, std::size_t bytes);

/// What blocks that run at the same time leave each other in the memory of the device: a thread
/// that does not find all of it waits for the next that is left. Other threads may go before the
/// rest of what a thread leaves has come.
void mail_left();
void mail_wait();

/// A stretch that a kernel asks the L2 for: aligned, and there to be read.
void touch_stretch(const void* p, unsigned bytes);

/// c [16, 8] (+)= a b of a warp, fragments as in mma.cuh.
void warp_product(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1,
                  bool half);

/// Ends the run: what went wrong.
void fail(const std::string& what);
/// Whether the last block wrote to shared memory from `first` on.
bool wrote_behind(std::size_t first);

void sync_threads();
/// Of `threads` threads of a block; one that does not wait goes on. None may be left half met.
void named_barrier(int name, int threads, bool waits);
void sync_warp();
std::uint64_t shuffle(std::uint64_t value, int from_lane);
void barrier_init(const void* barrier, unsigned count);
void barrier_arrive(const void* barrier, unsigned bytes);
void barrier_wait(const void* barrier, unsigned parity);
/// Of a map that the emulated make_tensor_map made.
void tensor_load(void* shared, const CUtensorMap* map, const void* barrier, const int* start,
                 int rank);
void bulk_load(void* shared, const void* from, unsigned bytes, const void* barrier);
/// Ordinary stores, which wgmma sees once this thread has fenced.
void store_shared(std::uint32_t address, const uint4& x);
void fence_shared();
void store_matrix(std::uint32_t address, const std::uint32_t (&r)[4]);

/// mma.sync of bytes, m16n8k32 and k16: c of this lane plus its sums. Those of `a` have no signs
/// where that is said.
void multiply_bytes(int (&c)[4], const std::array<std::uint32_t, 4>& a,
                    const std::array<std::uint32_t, 2>& b, int columns, bool a_unsigned);

/// ldmatrix of four: lanes 8 i to 8 i + 7 have the rows of matrix i.
void load_matrices(std::uint32_t (&r)[4], std::uint32_t address);
/// Lane l has columns 2 (l % 4) and + 1 of row l / 4 of a matrix of 16-bit elements, then of its
/// transpose.
std::uint32_t transpose(std::uint32_t x);

/// cp.async of 16, 8 or 4 bytes to `address` in shared memory, some time before it is waited for;
/// zeros where !valid. Source and target must be multiples of as many.
void copy_async(std::uint32_t address, const void* from, bool valid, int bytes = 16);
/// Where it may come from; nothing: anywhere.
struct Readable {
  const void* from = nullptr;
  std::size_t bytes = 0;
};
void copy_only_from(std::vector<Readable> places);
void copies_commit();
/// Until at most so many of this thread's groups are under way.
void copies_wait(int pending);

/// d [64, columns] of the warpgroup's threads (+)= a b of one 16 deep step (of codes 32 deep), once
/// it is waited for.
struct Product {
  float* d = nullptr;
  int columns = 0;
  bool half = false;  ///< float16, else bfloat16
  bool accumulate = true;
  std::uint64_t a = 0;                         ///< descriptor, or
  const std::uint32_t* a_registers = nullptr;  ///< the thread's fragment, which must stay, or
  std::uint64_t b = 0;
  bool b_transposed = false;
  bool codes = false;   ///< both are e4m3
  bool a_held = false;  ///< the fragment as it is now:
  std::array<std::uint32_t, 4> a_values{};
};
void product(const Product& p);
void products_commit();
void products_wait(int pending);

}  // namespace emulator

inline void __syncthreads() { emulator::sync_threads(); }
inline void __syncwarp() { emulator::sync_warp(); }
inline int emulated_lane() { return static_cast<int>(threadIdx.x % 32); }
inline int __shfl_sync(unsigned, int x, int lane) {
  return static_cast<int>(
      static_cast<std::uint32_t>(emulator::shuffle(static_cast<std::uint32_t>(x), lane)));
}
inline int __shfl_up_sync(unsigned, int x, int by) {
  const int from = emulated_lane() >= by ? emulated_lane() - by : emulated_lane();
  return __shfl_sync(0, x, from);
}
inline float __shfl_xor_sync(unsigned, float x, int with) {
  std::uint32_t bits = 0;
  std::memcpy(&bits, &x, 4);
  const auto got = static_cast<std::uint32_t>(emulator::shuffle(bits, emulated_lane() ^ with));
  std::memcpy(&x, &got, 4);
  return x;
}
inline float __shfl_sync(unsigned, float x, int lane) {
  std::uint32_t bits = 0;
  std::memcpy(&bits, &x, 4);
  const auto got = static_cast<std::uint32_t>(emulator::shuffle(bits, lane));
  std::memcpy(&x, &got, 4);
  return x;
}
inline std::uint32_t __shfl_xor_sync(unsigned, std::uint32_t x, int with) {
  return static_cast<std::uint32_t>(emulator::shuffle(x, emulated_lane() ^ with));
}
inline int __shfl_xor_sync(unsigned, int x, int with) {
  return __shfl_sync(0, x, emulated_lane() ^ with);
}
inline int __all_sync(unsigned, int x) {
  for (int by = 1; by < 32; by *= 2) {  // each lane's answer to all
    const int other = __shfl_sync(0, x != 0 ? 1 : 0, emulated_lane() ^ by);
    x = x != 0 && other != 0 ? 1 : 0;
  }
  return x;
}
inline int __any_sync(unsigned mask, int x) {
  return __all_sync(mask, x == 0 ? 1 : 0) == 0 ? 1 : 0;
}
inline long long __shfl_sync(unsigned, long long x, int lane) {
  return static_cast<long long>(emulator::shuffle(static_cast<std::uint64_t>(x), lane));
}
// Each of these rounds once; the host's build contracts nothing.
inline float __fmaf_rn(float x, float y, float z) { return std::fma(x, y, z); }
inline float __fmul_rn(float x, float y) { return x * y; }
inline float __fadd_rn(float x, float y) { return x + y; }
inline float __fdiv_rn(float x, float y) { return x / y; }
inline float __fsqrt_rn(float x) { return std::sqrt(x); }
inline unsigned atomicAdd(unsigned* at, unsigned by) {
  const unsigned before = *at;
  *at += by;
  return before;
}
inline unsigned atomicExch(unsigned* at, unsigned to) {
  const unsigned before = *at;
  *at = to;
  return before;
}
inline std::uint32_t __float_as_uint(float x) {
  std::uint32_t bits = 0;
  std::memcpy(&bits, &x, 4);
  return bits;
}
inline float __uint_as_float(std::uint32_t bits) {
  float x = 0;
  std::memcpy(&x, &bits, 4);
  return x;
}
/// To nearest even, saturating; NaN gives 0.
inline int __float2int_rn(float x) {
  if (std::isnan(x)) return 0;
  if (x >= 0x1p31f) return 0x7fffffff;
  if (x <= -0x1p31f) return -0x7fffffff - 1;
  return static_cast<int>(std::nearbyint(x));
}
inline std::uint32_t __byte_perm(std::uint32_t x, std::uint32_t y, std::uint32_t selector) {
  const std::uint64_t both = static_cast<std::uint64_t>(y) << 32 | x;
  std::uint32_t r = 0;
  for (int i = 0; i < 4; ++i) {
    const std::uint64_t byte = both >> 8 * (selector >> 4 * i & 7) & 0xff;
    r |= static_cast<std::uint32_t>(byte) << 8 * i;
  }
  return r;
}
template <typename T>
T __ldcg(const T* p) {
  return *p;
}
inline int min(int a, int b) { return a < b ? a : b; }
inline std::int64_t min(std::int64_t a, std::int64_t b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }

}  // namespace attn::gpu
