// What a block of the Hopper prefill kernel has in shared memory (attention_hopper.cuh), and how it
// starts.
#pragma once

#include "gpu/kernels/attention_hopper_launch.h"
#include "gpu/kernels/batch.cuh"
#include "gpu/kernels/hopper_ptx.cuh"
#include "gpu/kernels/hopper_work.h"

namespace attn::gpu {

/// What the drawing warp says about a tile.
struct HopperTile {
  int sequence = -1;  ///< -1: there are no more
  int unit = 0;
  int first_row = 0;    ///< packed, of the sequence
  int rows = 0;         ///< packed rows of the sequence, all tiles
  int first_token = 0;  ///< row of the batch at which the sequence begins
  int keys = 0;         ///< of the sequence
  int last_step = 0;    ///< behind the last
  int steps = 0;
};

template <typename T, int kSlabs>
struct HopperShared {
  static constexpr int kKeys = hopper_keys(kSlabs);
  static constexpr int kStages = hopper_stages(kSlabs);
  static constexpr int kOutSlabs = hopper_out_slabs(kSlabs);
  static constexpr int kSlab = kKeys * kSlabColumns;
  static constexpr int kQuerySlab = kHopperGroupRows * kSlabColumns;
  // Arrivals that fill a stage, that say what a tile's rows see, and that leave a tile.
  static constexpr int kFillers = 1;
  static constexpr int kTellers = 32;
  static constexpr int kTileReaders = 32 * kHopperTileReaders;
  // In the swizzle of swizzle_128.
  T q[kHopperGroups][kSlabs][kQuerySlab];
  T k[kStages][kSlabs][kSlab];
  T v[kStages][kSlabs][kSlab];
  T out[4 * kHopperGroups][kOutSlabs][16 * kSlabColumns];  // of the consumers' warps
  std::uint64_t full_q[kHopperGroups], empty_q[kHopperGroups];
  std::uint64_t full_k[kStages], empty_k[kStages];
  std::uint64_t full_v[kStages], empty_v[kStages];
  std::uint64_t full_tile[kHopperTileSlots], empty_tile[kHopperTileSlots];
  std::uint64_t full_rows[kHopperTileSlots];  // what is said of the tile's rows
  std::uint64_t begun;                        // the newest tile, by warp 0
  std::uint64_t tail;                         // of values whose step is not handed on as it comes
  HopperTile tile[kHopperTileSlots];
  // Of a tile's rows: the first key that they see, and how many. Here and not in registers, which
  // the loop wants for itself.
  int2 seen[kHopperTileSlots][kHopperRows];
  // Of its warpgroups: first_plain and last_plain of HopperWalk.
  int2 plain[kHopperTileSlots][kHopperGroups];
  // The sequences, and the order of their tiles.
  int first_token[kHopperMostSequences + 1];
  int keys[kHopperMostSequences];
  int tiles[kHopperMostSequences];
  int order[kHopperMostSequences];  // sequence of a rank
  int first_tile[kHopperMostSequences + 1];
};

/// Where keys and values come as images of widened codes. `v` holds float16 whatever T is.
template <typename T, int kSlabs>
struct HopperImagesShared : HopperShared<T, kSlabs> {
  float2 scales[kHopperTileSlots];  // of a tile's keys and values
};

/// Where keys and values come as codes. `v` holds float16 whatever T is.
template <typename T, int kSlabs>
struct HopperCodedShared : HopperShared<T, kSlabs> {
  static constexpr int kFillers = 4;  // a lane of each warp, for all
  static constexpr int kTellers = 128;
  static constexpr int kTileReaders = 32 * (kHopperReaders + 4);
  float2 scales[kHopperTileSlots];  // of a tile's keys and values
  HopperTile drawn;                 // and not yet announced
  std::uint64_t heads[4][2];        // addresses of a kv head's keys and values, of each warp
  // Addresses of each warp's first keys and values of a step's passes.
  std::uint64_t rows[4][hopper_code_passes(kSlabs)][2];
  // From there to the codes of a thread, where it has several of a row.
  static constexpr int kPairs = hopper_code_loads(kSlabs) / hopper_code_passes(kSlabs);
  std::uint32_t within[2][kPairs][128];
};

/// With room to begin at a multiple of 1024.
template <typename T, int kSlabs>
inline constexpr std::size_t kHopperSharedBytes = sizeof(HopperShared<T, kSlabs>) + 1024;
template <typename T, int kSlabs>
inline constexpr std::size_t kHopperImagesBytes = sizeof(HopperImagesShared<T, kSlabs>) + 1024;
template <typename T, int kSlabs>
inline constexpr std::size_t kHopperCodedSharedBytes = sizeof(HopperCodedShared<T, kSlabs>) + 1024;

template <typename Shared>
__device__ __forceinline__ void init_barriers(Shared& shared) {
  for (int i = 0; i < kHopperGroups; ++i) {
    barrier_init(&shared.full_q[i], 1);
    barrier_init(&shared.empty_q[i], kHopperQueryReaders);
  }
  for (int i = 0; i < kHopperTileSlots; ++i) {
    barrier_init(&shared.full_tile[i], 1);
    barrier_init(&shared.full_rows[i], Shared::kTellers);
    barrier_init(&shared.empty_tile[i], Shared::kTileReaders);
  }
  for (int i = 0; i < Shared::kStages; ++i) {
    barrier_init(&shared.full_k[i], Shared::kFillers);
    barrier_init(&shared.empty_k[i], kHopperReaders);
    barrier_init(&shared.full_v[i], Shared::kFillers);
    barrier_init(&shared.empty_v[i], kHopperReaders);
  }
  barrier_init(&shared.begun, 1);
  barrier_init(&shared.tail, 1);
  fence_barrier_init();
}

/// All threads: which tiles there are, in their order.
template <typename Shared>
__device__ __forceinline__ void order_tiles(Shared& shared, const HopperCall& call) {
  const int sequences = static_cast<int>(call.a.batch.batch);
  const int mine = kHopperThreads - 1 - static_cast<int>(threadIdx.x);  // the loads have to wait
  for (int s = mine; s < sequences; s += kHopperThreads) {
    const Sequence sequence = load_sequence(call.a.batch, s);
    shared.first_token[s] = static_cast<int>(sequence.first_row);
    if (s == sequences - 1) {
      shared.first_token[sequences] = static_cast<int>(sequence.first_row + sequence.rows);
    }
    shared.keys[s] = static_cast<int>(sequence.keys);
    shared.tiles[s] = call.units * hopper_row_tiles(static_cast<int>(sequence.rows) * call.pack);
  }
  __syncthreads();
  for (int s = mine; s < sequences; s += kHopperThreads) {
    shared.order[hopper_rank(shared.keys, sequences, s)] = s;
  }
  __syncthreads();
  if (threadIdx.x < 32) {
    const int lane = static_cast<int>(threadIdx.x);
    int before = 0;
    if (lane == 0) shared.first_tile[0] = 0;
    for (int first = 0; first < sequences; first += 32) {
      const int rank = first + lane;
      int sum = rank < sequences ? shared.tiles[shared.order[rank]] : 0;
#pragma unroll
      for (int step = 1; step < 32; step *= 2) {
        const int other = __shfl_up_sync(0xffffffffu, sum, step);
        if (lane >= step) sum += other;
      }
      if (rank < sequences) shared.first_tile[rank + 1] = before + sum;
      before += __shfl_sync(0xffffffffu, sum, 31);
    }
  }
  __syncthreads();
}

}  // namespace attn::gpu
