// What a block of the prefill kernel of fp8 products has in shared memory
// (attention_hopper_fp8.cuh).
#pragma once

#include "gpu/kernels/attention_hopper_shared.cuh"
#include "gpu/kernels/element.cuh"

namespace attn::gpu {

/// At a multiple of 1024; operands in the swizzle of swizzle_128. Members that HopperShared has too
/// mean the same.
template <int kSlabs>
struct HopperFp8Shared {
  static constexpr int kKeys = 128;
  static constexpr int kStages = kHopperFp8Stages;
  static constexpr int kOutSlabs = hopper_out_slabs(kSlabs);
  static constexpr int kSlab = kKeys * kSlabRowBytes;  // of a step's keys
  static constexpr int kFillers = 1;
  static constexpr int kTellers = 64;
  static constexpr int kTileReaders = 32 * kHopperTileReaders;
  // Queries of two tiles: the next one's are turned to codes while this one's are multiplied.
  E4m3 q[kHopperTileSlots][kHopperGroups][kHopperGroupRows * kSlabRowBytes];
  E4m3 k[kStages][kSlab];
  E4m3 v[kStages][kSlabs * kSlabColumns * kSlabRowBytes];  // a row a channel
  std::uint16_t out[4 * kHopperGroups][kOutSlabs][16 * kSlabColumns];
  std::uint64_t full_k[kStages], empty_k[kStages];
  std::uint64_t full_v[kStages], empty_v[kStages];
  std::uint64_t full_tile[kHopperTileSlots], empty_tile[kHopperTileSlots];
  std::uint64_t full_rows[kHopperTileSlots];
  std::uint64_t begun;
  HopperTile tile[kHopperTileSlots];
  int2 seen[kHopperTileSlots][kHopperRows];
  int2 plain[kHopperTileSlots][kHopperGroups];
  float query_scale[kHopperTileSlots][kHopperRows];  // that takes back the rows' own
  float2 scales[kHopperTileSlots];                   // of a tile's keys and values
  int first_token[kHopperMostSequences + 1];
  int keys[kHopperMostSequences];
  int tiles[kHopperMostSequences];
  int order[kHopperMostSequences];
  int first_tile[kHopperMostSequences + 1];
};

/// Without barriers of queries, whose codes come with what is said of the rows.
template <int kSlabs>
__device__ __forceinline__ void init_fp8_barriers(HopperFp8Shared<kSlabs>& shared) {
  using Shared = HopperFp8Shared<kSlabs>;
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
  fence_barrier_init();
}

/// With room to begin at a multiple of 1024.
template <int kSlabs>
inline constexpr std::size_t kHopperFp8SharedBytes = sizeof(HopperFp8Shared<kSlabs>) + 1024;

}  // namespace attn::gpu
