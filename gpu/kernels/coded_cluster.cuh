// Products of some rows of x, up to a tile of 16 to 128, with weights of 4 bits that are made in
// the type of x (gptq), by wgmma: W is A, decoded in registers, x is B in shared memory.
//
// A block has up to 192 rows of W, a warpgroup each 64, and of the columns a part; the blocks of a
// cluster share out the columns, so that a block has few columns of x (128 KB of 64 rows at 4096
// columns in four parts) and reads its codes once. A warp brings its own 16 rows' codes, 16 chunks
// of 64 columns under way, from before the grid before has ended; a lane reads what it brought
// itself. One thread more brings x, a box of 64 columns for each chunk. While the tensor cores
// multiply a chunk, a warp takes the next one's codes apart.
//
// At the end each block finishes some rows of x: the others' sums of these come to its shared
// memory, one cluster barrier, added in the order of the parts. Compute capability 9.0a only;
// elsewhere the kernel is empty.
#pragma once

#include "gpu/kernels/coded_cluster_shape.h"
#include "gpu/kernels/coded_decode.cuh"
#include "gpu/kernels/hopper_ptx.cuh"
#include "gpu/kernels/wgmma_narrow.cuh"

namespace attn::gpu {

/// The block's place, the same for all its threads.
struct ClusterBlock {
  int part, parts;
  int first, chunks;  ///< of its part
  int stages;
  int threads;             ///< that multiply
  std::int64_t first_row;  ///< of x
  ClusterMemory at;
  char* memory;

  __device__ __forceinline__ std::uint64_t* full(int stage) const {
    return reinterpret_cast<std::uint64_t*>(memory + at.barriers) + stage;
  }
  __device__ __forceinline__ std::uint64_t* empty(int stage) const {
    return full(kMostClusterStages + stage);
  }
};

/// A place in a ring that one of its users goes through.
struct ClusterTurn {
  int stage = 0;
  unsigned parity = 0;
  __device__ __forceinline__ void advance(int stages) {
    if (++stage < stages) return;
    stage = 0;
    parity ^= 1;
  }
};

/// One thread: the part's chunks of x.
template <int kColumns>
__device__ __forceinline__ void bring_x(const ClusterBlock& block, const CUtensorMap* map) {
  constexpr int kBytes = ClusterTile<kColumns>::kStageBytes;
  ClusterTurn turn;
#pragma unroll 1
  for (int i = 0; i < block.chunks; ++i) {
    if (i >= block.stages) barrier_wait(block.empty(turn.stage), turn.parity ^ 1);
    barrier_arrive_bytes(block.full(turn.stage), kBytes);
    tensor_load_3d(block.memory + turn.stage * kBytes, map, block.full(turn.stage),
                   (block.first + i) * kCodedChunk, static_cast<int>(block.first_row), 0);
    turn.advance(block.stages);
  }
}

/// A warp's 16 rows of W: what a lane copies of each chunk.
struct ClusterCopies {
  const char* codes;
  const char* scales;  ///< null: no part of them is this lane's
  int scale_bytes, scale_shift;
  std::uint32_t to;

  __device__ __forceinline__ ClusterCopies(const CodedMatrix& w, std::int64_t tile, int lane,
                                           const char* ring)
      : codes(static_cast<const char*>(w.codes.data) + tile * w.codes.tile_bytes + 16 * lane),
        scales(16 * lane < w.inner.bytes
                   ? static_cast<const char*>(w.inner.data) + tile * w.inner.tile_bytes + 16 * lane
                   : nullptr),
        scale_bytes(w.inner.bytes),
        scale_shift(w.inner.shift),
        to(shared_address(ring) + 16 * lane) {}

  __device__ __forceinline__ void operator()(int chunk, int slot_at) const {
    copy_async_16(to + slot_at, codes + static_cast<std::int64_t>(chunk) * 512, true);
    if (scales != nullptr) {
      copy_async_16(to + slot_at + 512,
                    scales + static_cast<std::int64_t>(chunk >> scale_shift) * scale_bytes, true);
    }
  }
};

/// The weights of a chunk of a warp: taken apart, and then made. Small: SmallScales.
template <typename T, bool kSmall>
struct ClusterWeights {
  std::uint32_t w[4][4];
  uint4 codes;
  std::uint32_t scale[kSmall ? 1 : 4];

  __device__ __forceinline__ void load(const char* slot, int lane, int shift) {
    codes = reinterpret_cast<const uint4*>(slot)[lane];
    const auto* const scales = reinterpret_cast<const std::uint32_t*>(slot + 512) + lane / 4;
#pragma unroll
    for (int s = 0; s < (kSmall ? 1 : 4); ++s) scale[s] = scales[(s >> shift) * 8];
  }
  __device__ __forceinline__ void take_apart(std::uint32_t mask, std::uint32_t zero) {
    const std::uint32_t words[4] = {codes.x, codes.y, codes.z, codes.w};
#pragma unroll
    for (int s = 0; s < 4; ++s) {
      if constexpr (kSmall) {
        SmallScales::codes_of(words[s], w[s]);
      } else {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          w[s][i] = Pairs<T>::subtract((words[s] >> 4 * i & mask) | Pairs<T>::kMagic, zero);
        }
      }
      pin(w[s]);
    }
  }
  __device__ __forceinline__ void make() {
    if constexpr (kSmall) {
      const SmallScales scales(scale[0]);
#pragma unroll
      for (int s = 0; s < 4; ++s) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          w[s][i] = fma_bf16_pair(w[s][i], scales.scale[i % 2], scales.eight[i % 2]);
        }
        pin(w[s]);
      }
    } else {
#pragma unroll
      for (int s = 0; s < 4; ++s) {
        scale_fragment<T>(scale[s], w[s]);
        pin(w[s]);
      }
    }
  }
};

/// The part's sums of a warp's 16 rows. Copies of the first kDepth chunks are under way.
template <typename T, int kColumns, bool kSmall>
__device__ __forceinline__ void multiply_part(const CodedGemmArguments& a,
                                              const ClusterBlock& block,
                                              const ClusterCopies& copies, const char* ring,
                                              float (&sum)[kColumns / 2]) {
  constexpr int kDepth = ClusterTile<kColumns>::kDepth;
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int shift = step_shift(a.w);
  const std::uint32_t mask = 0x000f000fu | a.zero;
  const std::uint32_t zero = ChunkCodes<CodeKind::kU4>::template zero_of<T>(a.w);
  const std::uint32_t x = shared_address(block.memory);
#pragma unroll
  for (int i = 0; i < kColumns / 2; ++i) sum[i] = 0.0f;
  ClusterTurn turn;
  int before = 0;  // stage of the chunk before
  int slot = 0;    // bytes
#pragma unroll 1
  for (int i = 0; i < block.chunks; ++i) {
    ClusterWeights<T, kSmall> weights;
    copy_async_wait<kDepth - 1>();
    __syncwarp();  // scales came to other lanes' copies
    weights.load(ring + slot, lane, shift);
    weights.take_apart(mask, zero);
    __syncwarp();
    if (i + kDepth < block.chunks) copies(block.first + i + kDepth, slot);
    copy_async_commit();
    barrier_wait(block.full(turn.stage), turn.parity);
    wgmma_wait<0>();
    if (i > 0 && lane == 0) barrier_arrive(block.empty(before));
    weights.make();
    pin(sum);
    const std::uint64_t b = wgmma_descriptor(x + turn.stage * ClusterTile<kColumns>::kStageBytes);
    wgmma_fence();
#pragma unroll
    for (int s = 0; s < 4; ++s) {
      wgmma_narrow<T, kColumns>(sum, weights.w[s], b + 2 * s, 1);
    }
    wgmma_commit();
    before = turn.stage;
    turn.advance(block.stages);
    slot += block.at.slot;
    if (slot == kDepth * block.at.slot) slot = 0;
  }
  wgmma_wait<0>();
  pin(sum);
}

/// Of what a thread of a block finishes: `of` floats of unit `unit` of those that block `from` left
/// for it. Both count: `unit` among the finisher's, `from` among the others.
template <int kColumns>
__device__ __forceinline__ int left_floats(int from, int unit, int units, int threads, int thread) {
  constexpr int kOf = ClusterTile<kColumns>::kOfUnit;
  constexpr int kWidth = kOf < 4 ? kOf : 4;
  return ((from * units + unit) * (kOf / kWidth) * threads + thread) * kWidth;
}

/// Gives the other blocks of the cluster what they finish, and finishes the others' and its own.
template <int kColumns>
__device__ __forceinline__ void exchange(const ClusterBlock& block, float (&sum)[kColumns / 2]) {
  using Tile = ClusterTile<kColumns>;
  constexpr int kOf = Tile::kOfUnit;
  constexpr int kWidth = kOf < 4 ? kOf : 4;
  const int units = Tile::kUnits / block.parts;  // of a block
  const int thread = static_cast<int>(threadIdx.x);
  auto* const left = reinterpret_cast<float*>(block.memory + block.at.parts);
#pragma unroll
  for (int unit = 0; unit < Tile::kUnits; ++unit) {
    const int owner = unit * block.parts / Tile::kUnits;
    if (owner == block.part) continue;
    const int from = block.part < owner ? block.part : block.part - 1;
    const std::uint32_t to =
        cluster_address(shared_address(left + left_floats<kColumns>(from, unit - owner * units,
                                                                    units, block.threads, thread)),
                        static_cast<unsigned>(owner));
#pragma unroll
    for (int v = 0; v < kOf; v += kWidth) {
      const float* const s = sum + unit * kOf + v;
      const std::uint32_t at = to + static_cast<std::uint32_t>(4 * v * block.threads);
      if constexpr (kWidth == 4) {
        cluster_store(at, make_float4(s[0], s[1], s[2], s[3]));
      } else {
        cluster_store(at, make_float2(s[0], s[1]));
      }
    }
  }
  cluster_arrive();
  cluster_wait();
#pragma unroll
  for (int unit = 0; unit < Tile::kUnits; ++unit) {
    const int owner = unit * block.parts / Tile::kUnits;
    if (owner != block.part) continue;
    float total[kOf] = {};
#pragma unroll 1
    for (int part = 0; part < block.parts; ++part) {
      const int from = part < block.part ? part : part - 1;
      const float* const own =
          left + left_floats<kColumns>(part == block.part ? 0 : from, unit - owner * units, units,
                                       block.threads, thread);
#pragma unroll
      for (int i = 0; i < kOf; ++i) {
        total[i] += part == block.part ? sum[unit * kOf + i]
                                       : own[i / kWidth * kWidth * block.threads + i % kWidth];
      }
    }
#pragma unroll
    for (int i = 0; i < kOf; ++i) sum[unit * kOf + i] = total[i];
  }
}

/// Sums that this block finishes, to y, which is of the type of x.
template <typename T, int kColumns>
__device__ __forceinline__ void store_sums(const CodedGemmArguments& a, const ClusterBlock& block,
                                           std::int64_t tile, const float (&sum)[kColumns / 2]) {
  using Tile = ClusterTile<kColumns>;
  const int lane = static_cast<int>(threadIdx.x % 32);
  const std::int64_t n = tile * kCodedTile + lane / 4;  // and + 8
  const std::int64_t m = block.first_row + 2 * (lane % 4);
  const bool there[2] = {n < a.n, n + 8 < a.n};
  const bool has_bias = a.bias != nullptr;
  float bias[2] = {};
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    if (has_bias && there[h]) bias[h] = a.bias[n + 8 * h];
  }
  T* const y = static_cast<T*>(a.y) + m * a.y_stride + n;
  const int rows = static_cast<int>(a.m - m < kColumns ? a.m - m : kColumns);
#pragma unroll
  for (int i = 0; i < Tile::kSums; ++i) {
    if (i / Tile::kOfUnit * block.parts / Tile::kUnits != block.part) continue;
    const int row = i / 4 * 8 + i % 2;
    const int h = i / 2 % 2;
    const float biased = has_bias ? sum[i] + bias[h] : sum[i];
    if (row < rows && there[h]) {
      y[row * a.y_stride + 8 * h] = from_float<T>(held_within(biased, a.clip));
    }
  }
}

/// A warp that multiplies.
template <typename T, int kColumns>
__device__ __forceinline__ void cluster_consumer(const CodedGemmArguments& a,
                                                 const ClusterBlock& block, std::int64_t tile,
                                                 const ClusterCopies& copies, const char* ring) {
  float sum[kColumns / 2];
  constexpr bool kMayBeSmall = TypeOf<T>::value == Type::kBFloat16;
  bool small = false;
  if constexpr (kMayBeSmall) {
    small = a.w.small_scales && a.w.group_shift >= 6;
    if (small) multiply_part<T, kColumns, true>(a, block, copies, ring, sum);
  }
  if (!small) multiply_part<T, kColumns, false>(a, block, copies, ring, sum);
  if (block.parts > 1) {
    cluster_wait();  // the others have begun
    exchange<kColumns>(block, sum);
  }
  store_sums<T, kColumns>(a, block, tile, sum);
}

template <typename T, int kColumns>
__global__ void __launch_bounds__(ClusterTile<kColumns>::kMostThreads, 1)
    coded_cluster_kernel(const __grid_constant__ CodedGemmArguments a,
                         const __grid_constant__ CUtensorMap x, int groups, int stages) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ unsigned char memory[];
  constexpr int kDepth = ClusterTile<kColumns>::kDepth;
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int warp = static_cast<int>(threadIdx.x / 32);
  const int chunks = static_cast<int>(a.w.chunks);
  ClusterBlock block;
  block.part = static_cast<int>(blockIdx.z);
  block.parts = static_cast<int>(gridDim.z);
  block.first = cluster_chunk(chunks, block.part, block.parts);
  block.chunks = cluster_chunk(chunks, block.part + 1, block.parts) - block.first;
  block.stages = stages;
  block.threads = 128 * groups;
  block.first_row = static_cast<std::int64_t>(blockIdx.y) * kColumns;
  // Rings of a cluster's blocks lie alike: what one leaves another is where that one has it.
  const int most = (chunks + block.parts - 1) / block.parts;
  block.at = cluster_memory(a.w.inner.bytes, most, groups, block.parts, kColumns, kDepth, stages);
  block.memory = reinterpret_cast<char*>(memory) + (1024 - shared_address(memory) % 1024) % 1024;
  if (block.parts > 1) cluster_arrive_relaxed();
  const std::int64_t last = a.w.rows / kCodedTile - 1;
  const std::int64_t own = static_cast<std::int64_t>(blockIdx.x) * (4 * groups) + warp;
  const char* const ring = block.memory + block.at.codes + warp * block.at.ring_of_warp;
  const bool multiplies = warp < 4 * groups;
  // Tiles that there are not are the last again; they are not stored.
  const ClusterCopies copies(a.w, own < last ? own : last, lane, ring);
  if (multiplies) {  // weights do not depend on the kernel before this one
#pragma unroll 4
    for (int i = 0; i < kDepth; ++i) {
      if (i < block.chunks) copies(block.first + i, i * block.at.slot);
      copy_async_commit();
    }
  } else if (warp == 4 * groups && lane == 0) {
    prefetch_tensor_map(&x);
    for (int i = 0; i < stages; ++i) {
      barrier_init(block.full(i), 1);
      barrier_init(block.empty(i), static_cast<unsigned>(4 * groups));
    }
    fence_barrier_init();
  }
  allow_dependent_launch();
  __syncthreads();
  if (multiplies) {
    if constexpr (ClusterTile<kColumns>::kGivesRegisters) raise_registers<152>();
    cluster_consumer<T, kColumns>(a, block, own, copies, ring);
    return;
  }
  if constexpr (ClusterTile<kColumns>::kGivesRegisters) drop_registers<40>();
  if (warp == 4 * groups && lane == 0) {
    wait_for_previous_grid();
    fence_proxy_async();
    bring_x<kColumns>(block, &x);
  }
  __syncwarp();
  if (block.parts > 1) {
    cluster_wait();
    cluster_arrive();
    cluster_wait();
  }
#endif
}

}  // namespace attn::gpu
