// Products of some rows of x, up to a tile of 16 to 128, with weights of 4 bits that are made in
// the type of x (gptq), by wgmma: W is A, decoded in registers, x is B in shared memory.
//
// A block's warpgroups have 64 rows of W each and form sets, each with columns of its own: of a
// product's columns, parts are shared out to the sets of all blocks of a cluster, so that a block
// has few columns of x. A warp brings its own 16 rows' codes, up to 1024 columns under way, from
// before the grid before has ended; a lane reads the codes that it brought itself. One thread of a
// set brings x, 128 columns at a time. While the tensor cores multiply a chunk of 64 columns, a
// warp makes the next one's weights, in other registers; with two sets a scheduler has four warps,
// each of which waits for its own results most of the time.
//
// At the end each part finishes some rows of x: the others' sums of these come to its shared
// memory, one cluster barrier, added in the order of the parts. Compute capability 9.0a only;
// elsewhere the kernel is empty.
#pragma once

#include "gpu/kernels/coded_cluster_end.cuh"
#include "gpu/kernels/coded_cluster_weights.cuh"
#include "gpu/kernels/hopper_ptx.cuh"

namespace attn::gpu {

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

/// One thread: a pair of x, to the stage that is empty.
template <int kColumns>
__device__ __forceinline__ void bring_pair(const ClusterPart& part, const CUtensorMap* map,
                                           int pair, int stage) {
  constexpr int kBytes = ClusterTile<kColumns>::kChunkBytes;
  char* const to = part.x(2 * kBytes) + stage * 2 * kBytes;
  std::uint64_t* const full = part.full(stage);
  const int chunk = part.first + 2 * pair;
  const auto row = static_cast<int>(part.first_row);
  barrier_arrive_bytes(full, 2 * kBytes);
  tensor_load_3d(to, map, full, chunk * kCodedChunk, row, 0);
  tensor_load_3d(to + kBytes, map, full, (chunk + 1) * kCodedChunk, row, 0);
}

/// A warp's 16 rows of W: what a lane copies.
struct ClusterCopies {
  const char* codes;  ///< of the part's first chunk
  std::uint32_t to;
  int single;  ///< the pair that has one chunk, or none

  __device__ __forceinline__ ClusterCopies(const CodedMatrix& w, std::int64_t tile,
                                           const ClusterPart& part, int lane, const char* ring)
      : codes(static_cast<const char*>(w.codes.data) + tile * w.codes.tile_bytes +
              static_cast<std::int64_t>(part.first) * 512 + 16 * lane),
        to(shared_address(ring) + 16 * lane),
        single(part.chunks % 2 == 0 ? -1 : part.pairs - 1) {}

  /// Of a pair of chunks, the second of which may not be there: the first again, times zeros of x.
  /// `from`: codes + 1024 for each pair, `slot`: 1024 for each place in the ring.
  __device__ __forceinline__ void operator()(const char* from, int slot, bool one) const {
    copy_async_16(to + slot, from, true);
    copy_async_16(to + slot + 512, one ? from : from + 512, true);
  }
};

/// All scales of a warp's part.
__device__ __forceinline__ void copy_scales(const CodedMatrix& w, const ClusterPart& part,
                                            std::int64_t tile, int lane, std::uint32_t to) {
  const int first = part.first >> w.inner.shift;
  const int bytes = (((part.first + part.chunks - 1) >> w.inner.shift) - first + 1) * w.inner.bytes;
  const char* const from = static_cast<const char*>(w.inner.data) + tile * w.inner.tile_bytes +
                           static_cast<std::int64_t>(first) * w.inner.bytes;
#pragma unroll 1
  for (int i = 16 * lane; i < bytes; i += 512) copy_async_16(to + i, from + i, true);
}

/// The part's sums of a warp's 16 rows. Copies of its scales and of the first kDepth pairs are
/// under way; `scales`: this lane's two in the first record.
template <typename T, int kColumns, ClusterWay kWay>
__device__ __forceinline__ void multiply_part(const CodedGemmArguments& a, const ClusterPart& part,
                                              const CUtensorMap* map, const ClusterCopies& copies,
                                              const char* ring, const char* scales,
                                              float (&sum)[kColumns / 2]) {
  using Tile = ClusterTile<kColumns>;
  constexpr bool kSmall = kWay != ClusterWay::kAny;
  constexpr int kDepth = Tile::kDepth;
  using Weights = ClusterWeights<T, kSmall>;
  const int lane = static_cast<int>(threadIdx.x % 32);
  const bool brings = static_cast<int>(threadIdx.x) == part.set * part.threads;
  const int shift = step_shift(a.w);
  const std::uint32_t mask = 0x000f000fu | a.zero;
  const std::uint32_t zero = ChunkCodes<CodeKind::kU4>::template zero_of<T>(a.w);
  const std::uint32_t x = shared_address(part.x(2 * Tile::kChunkBytes));
  const int first_record = part.first >> a.w.inner.shift;
  const auto scales_of = [&](int chunk) {
    const int there = chunk < part.chunks ? chunk : part.chunks - 1;
    const int record = ((part.first + there) >> a.w.inner.shift) - first_record;
    return reinterpret_cast<const std::uint32_t*>(scales + record * a.w.inner.bytes);
  };
  const auto codes_at = [&](int slot, int chunk) {
    return reinterpret_cast<const uint4*>(ring + slot + 512 * chunk)[lane];
  };
  const auto multiply = [&](const Weights& weights, std::uint32_t address) {
    const std::uint32_t b = wgmma_lower(address);
    wgmma_fence();
#pragma unroll
    for (int s = 0; s < 4; ++s) wgmma_narrow<T, kColumns>(sum, weights.w[s], b + 2 * s);
    wgmma_commit();
  };
#pragma unroll
  for (int i = 0; i < kColumns / 2; ++i) sum[i] = 0.0f;
  const bool refills = part.pairs > part.stages;
  ClusterTurn turn;
  int slot = 0;
  const char* refill = copies.codes + 1024 * kDepth;
  int before = 0;  // stage of the pair before
  unsigned parity_before = 0;
  copy_async_wait<kDepth - 1>();
  __syncwarp();  // scales came to other lanes' copies
  uint4 codes[2] = {codes_at(0, 0), codes_at(0, 1)};
#pragma unroll 1
  for (int pair = 0; pair < part.pairs; ++pair) {
    const std::uint32_t stage = x + turn.stage * 2 * Tile::kChunkBytes;
    const std::uint32_t* const own = scales_of(2 * pair);
    Weights weights;
    weights.take_apart(codes[0], mask, zero);
    const LowScales low(kSmall ? own[0] : 0);
    if constexpr (kSmall) {
      weights.make(low);
    } else {
      weights.make(own, shift);
    }
    barrier_wait(part.full(turn.stage), turn.parity);
    wgmma_wait<0>();
    pin(sum);
    if (pair > 0 && refills && lane == 0) barrier_arrive(part.empty(before));
    multiply(weights, stage);
    Weights second;
    second.take_apart(codes[1], mask, zero);
    if (pair + kDepth < part.pairs) copies(refill, slot, pair + kDepth == copies.single);
    refill += 1024;
    slot = (slot + 1024) & (1024 * kDepth - 1);
    copy_async_commit();
    copy_async_wait<kDepth - 1>();
    if (pair + 1 < part.pairs) {
      codes[0] = codes_at(slot, 0);
      codes[1] = codes_at(slot, 1);
    }
    const std::uint32_t* const next = scales_of(2 * pair + 1);
    if constexpr (kWay == ClusterWay::kSmallPairs) {
      second.make(low);
    } else if constexpr (kSmall) {
      second.make(LowScales(next[0]));
    } else {
      second.make(next, shift);
    }
    wgmma_wait<0>();
    pin(sum);
    multiply(second, stage + Tile::kChunkBytes);
    if (brings && pair > 0 && pair - 1 + part.stages < part.pairs) {
      barrier_wait(part.empty(before), parity_before);
      bring_pair<kColumns>(part, map, pair - 1 + part.stages, before);
    }
    before = turn.stage;
    parity_before = turn.parity;
    turn.advance(part.stages);
  }
  wgmma_wait<0>();
  pin(sum);
}

template <typename T, int kColumns>
__global__ void __launch_bounds__(128 * ClusterTile<kColumns>::kMostWarpgroups, 1)
    coded_cluster_kernel(const __grid_constant__ CodedGemmArguments a,
                         const __grid_constant__ CUtensorMap x, int groups, int sets_shift,
                         int parts_shift, int stages) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ unsigned char memory[];
  using Tile = ClusterTile<kColumns>;
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int warp = static_cast<int>(threadIdx.x / 32);
  ClusterPart part;
  part.threads = 128 * groups;
  part.sets_shift = sets_shift;
  // By votes, so that the compiler knows that a warp has one.
  const int of_set = 4 * groups;
  part.set = (__any_sync(0xffffffffu, warp >= of_set ? 1 : 0) != 0 ? 1 : 0) +
             (__any_sync(0xffffffffu, warp >= 2 * of_set ? 1 : 0) != 0 ? 1 : 0) +
             (__any_sync(0xffffffffu, warp >= 3 * of_set ? 1 : 0) != 0 ? 1 : 0);
  part.parts = static_cast<int>(gridDim.z) << sets_shift;
  part.parts_shift = parts_shift;
  part.part = (static_cast<int>(blockIdx.z) << sets_shift) + part.set;
  const int all = cluster_pairs(a.w);
  const int first = cluster_pair(all, part.part, parts_shift);
  part.pairs = cluster_pair(all, part.part + 1, parts_shift) - first;
  part.first = 2 * first;
  const int there = static_cast<int>(a.w.chunks) - part.first;
  part.chunks = there < 2 * part.pairs ? there : 2 * part.pairs;
  part.stages = stages;
  part.first_row = static_cast<std::int64_t>(blockIdx.y) * kColumns;
  part.at =
      cluster_memory(a.w, groups, 1 << sets_shift, parts_shift, kColumns, Tile::kDepth, stages);
  part.memory = reinterpret_cast<char*>(memory) + (1024 - shared_address(memory) % 1024) % 1024;
  cluster_arrive_relaxed();
  const std::int64_t last = a.w.rows / kCodedTile - 1;
  const std::int64_t tile =
      static_cast<std::int64_t>(blockIdx.x) * (4 * groups) + (warp - part.set * (4 * groups));
  const std::int64_t own = tile < last ? tile : last;  // tiles that there are not are not stored
  const char* const ring = part.memory + part.at.codes + warp * part.at.codes_of_warp;
  const char* const scales = part.memory + part.at.scales + warp * part.at.scales_of_warp;
  // Weights do not depend on the kernel before this one.
  const ClusterCopies copies(a.w, own, part, lane, ring);
  copy_scales(a.w, part, own, lane, shared_address(scales));
#pragma unroll
  for (int i = 0; i < Tile::kDepth; ++i) {
    if (i < part.pairs) copies(copies.codes + 1024 * i, 1024 * i, i == copies.single);
    copy_async_commit();
  }
  if (static_cast<int>(threadIdx.x) == part.set * part.threads) {
    prefetch_tensor_map(&x);
    for (int i = 0; i < stages; ++i) {
      barrier_init(part.full(i), 1);
      barrier_init(part.empty(i), static_cast<unsigned>(4 * groups));
    }
    fence_barrier_init();
  }
  allow_dependent_launch();
  __syncthreads();
  if (static_cast<int>(threadIdx.x) == part.set * part.threads) {
    wait_for_previous_grid();
    fence_proxy_async();
#pragma unroll 1
    for (int i = 0; i < stages && i < part.pairs; ++i) bring_pair<kColumns>(part, &x, i, i);
  }
  __syncwarp();
  float sum[Tile::kSums];
  const char* const own_scales = scales + 4 * (lane / 4);
  bool small = false;
  if constexpr (TypeOf<T>::value == Type::kBFloat16) {
    small = a.w.small_scales && a.w.group_shift >= 6;
    if (small && a.w.group_shift > 6) {
      multiply_part<T, kColumns, ClusterWay::kSmallPairs>(a, part, &x, copies, ring, own_scales,
                                                          sum);
    } else if (small) {
      multiply_part<T, kColumns, ClusterWay::kSmall>(a, part, &x, copies, ring, own_scales, sum);
    }
  }
  if (!small) {
    multiply_part<T, kColumns, ClusterWay::kAny>(a, part, &x, copies, ring, own_scales, sum);
  }
  cluster_wait();  // the others have begun
  leave_sums<kColumns>(part, sum);
  cluster_arrive();
  cluster_wait();
  finish_sums<T, kColumns>(a, part, tile, small ? 16.0f : 1.0f, sum);
#endif
}

}  // namespace attn::gpu
