#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "gpu/kernels/coded_gemm.h"
#include "gpu/kernels/host_device.h"

namespace attn::gpu {

/// Warpgroups that multiply, at most, of 64 rows of W each.
inline constexpr int kMostClusterGroups = 3;
inline constexpr int kClusterGroupRows = 64;
/// Blocks of a cluster, which share the columns of a product.
inline constexpr int kMostClusterParts = 8;
/// Chunks of x in shared memory, each with two barriers.
inline constexpr int kMostClusterStages = 32;
inline constexpr int kClusterBarrierBytes = 2 * 8 * kMostClusterStages;

/// A block's tile for `columns` rows of x, the columns of wgmma's result.
template <int kColumns>
struct ClusterTile {
  static_assert(kColumns == 16 || kColumns == 32 || kColumns == 64 || kColumns == 128);
  static constexpr int kSums = kColumns / 2;  ///< registers of a thread
  /// Sums change hands in so many units; a block of the cluster finishes as many as any other.
  static constexpr int kUnits = kColumns == 16 ? 4 : kMostClusterParts;
  static constexpr int kOfUnit = kSums / kUnits;
  static constexpr int kStageBytes = kColumns * 2 * kCodedChunk;
  /// Chunks of codes that a warp has under way.
  static constexpr int kDepth = kColumns <= 64 ? 16 : 8;
  /// Behind the threads that multiply, one of which brings x. Sums of 128 rows want more registers
  /// than 128, which a warpgroup alone can give up.
  static constexpr bool kGivesRegisters = kColumns == 128;
  static constexpr int kOtherThreads = kGivesRegisters ? 128 : 32;
  static constexpr int kMostThreads = 128 * kMostClusterGroups + kOtherThreads;
};

/// Which products are clusters', of those that they can take.
enum class CodedClusters : std::uint8_t {
  kWhereTheyPay,  ///< cluster_pays()
  kAlways,
  kNever,
};

/// How a product is shared out; decided on the host.
struct CodedClusterPlan {
  bool taken = false;
  int columns = 0;  ///< rows of x in a tile: 16, 32, 64 or 128
  int groups = 0;   ///< warpgroups of a block
  int parts = 0;    ///< blocks of a cluster, a power of two
  int tiles = 0;    ///< of W
  int tiles_of_x = 0;
  int stages = 0;  ///< chunks of x in shared memory
  std::size_t shared_bytes = 0;
};

/// Chunks [cluster_chunk(chunks, part, parts), that of part + 1) are those of a block.
ATTN_HOST_DEVICE int cluster_chunk(int chunks, int part, int parts) {
  return static_cast<int>(static_cast<std::int64_t>(chunks) * part / parts);
}

/// Offsets in a block's shared memory, from a multiple of 1024 bytes on: stages of x, what other
/// blocks leave (floats [block of the cluster but this][unit of this][kOfUnit / w][thread][w], w =
/// 2 or 4), barriers, and each warp's ring of codes and scales.
struct ClusterMemory {
  int parts = 0, barriers = 0, codes = 0, bytes = 0;
  int slot = 0;  ///< bytes of a chunk of a warp: 512 of codes, then scales
  int ring_of_warp = 0;
};
ATTN_HOST_DEVICE ClusterMemory cluster_memory(int scale_bytes, int chunks_of_part, int groups,
                                              int parts, int columns, int depth, int stages) {
  ClusterMemory m;
  m.parts = stages * columns * 2 * kCodedChunk;
  m.barriers = m.parts + (parts - 1) * (columns / 2 / parts) * 4 * 128 * groups;
  m.codes = m.barriers + kClusterBarrierBytes;
  m.slot = 512 + scale_bytes;
  m.ring_of_warp = m.slot * (chunks_of_part < depth ? chunks_of_part : depth);
  m.bytes = m.codes + 4 * groups * m.ring_of_warp;
  return m;
}

}  // namespace attn::gpu
