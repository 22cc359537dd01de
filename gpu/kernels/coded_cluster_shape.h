#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "gpu/kernels/coded_gemm.h"
#include "gpu/kernels/host_device.h"

namespace attn::gpu {

/// A warpgroup multiplies 64 rows of W by a tile's rows of x; those of a block are sets of up to
/// three with rows of their own, and each set has columns of its own.
inline constexpr int kMostClusterGroups = 3;
inline constexpr int kMostClusterSets = 4;
inline constexpr int kClusterGroupRows = 64;
/// Blocks of a cluster.
inline constexpr int kMostClusterBlocks = 8;
/// Columns go by pairs of chunks, which arrive together.
inline constexpr int kClusterPair = 2 * kCodedChunk;
/// Pairs of x of a set in shared memory, each with two barriers.
inline constexpr int kMostClusterStages = 16;
inline constexpr int kClusterBarrierBytes = 2 * 8 * kMostClusterStages;  // of a set

/// A block's tile for `columns` rows of x, the columns of wgmma's result.
template <int kColumns>
struct ClusterTile {
  static_assert(kColumns == 16 || kColumns == 32 || kColumns == 64 || kColumns == 128);
  static constexpr int kSums = kColumns / 2;  ///< registers of a thread
  /// Sums change hands in so many units; each part of the columns finishes as many.
  static constexpr int kUnits = kColumns == 16 ? 4 : 8;
  static constexpr int kOfUnit = kSums / kUnits;
  static constexpr int kChunkBytes = kColumns * 2 * kCodedChunk;
  /// Pairs of codes that a warp has under way, a power of two.
  static constexpr int kDepth = kColumns <= 32 ? 8 : 4;
  /// Warpgroups of a block: registers.
  static constexpr int kMostWarpgroups = kColumns == 128 ? 3 : 4;
};

/// Which products are clusters', of those that they can take.
enum class CodedClusters : std::uint8_t {
  kWhereTheyPay,  ///< cluster_pays()
  kAlways,
  kNever,
};

/// How a product is shared out; decided on the host. The columns have `parts` parts, of sets times
/// blocks of a cluster.
struct CodedClusterPlan {
  bool taken = false;
  int columns = 0;  ///< rows of x in a tile: 16, 32, 64 or 128
  int groups = 0;   ///< warpgroups of a set
  int sets = 0;     ///< of a block
  int blocks = 0;   ///< of a cluster
  int tiles = 0;    ///< of W
  int tiles_of_x = 0;
  int stages = 0;  ///< pairs of x of a set in shared memory
  std::size_t shared_bytes = 0;

  int parts() const { return sets * blocks; }
  int sets_shift() const { return shift_of(sets); }  ///< logarithms
  int blocks_shift() const { return shift_of(blocks); }
  int parts_shift() const { return shift_of(parts()); }

 private:
  static int shift_of(int power) {
    int shift = 0;
    while (1 << shift < power) ++shift;
    return shift;
  }
};

/// Pairs [cluster_pair(pairs, part, shift), that of part + 1) are those of a part, of 2^shift.
ATTN_HOST_DEVICE int cluster_pairs(const CodedMatrix& w) {
  return static_cast<int>((w.chunks + 1) / 2);
}
ATTN_HOST_DEVICE int cluster_pair(int pairs, int part, int parts_shift) {
  return static_cast<int>(static_cast<std::int64_t>(pairs) * part >> parts_shift);
}

/// Offsets in a block's shared memory, from a multiple of 1024 bytes on, the same in all blocks of
/// a cluster:
///   x       [set][stage][2 chunks][row of x][128 bytes]
///   left    [set][part but its own][unit of its own][kOfUnit / w][thread][w]: sums of other parts,
///           floats, w = 2 or 4
///   full, empty barriers of each set
///   scales  [warp]: records of the part
///   codes   [warp][kDepth pairs][2 chunks][lane][16 bytes]
struct ClusterMemory {
  int left = 0, left_of_set = 0, barriers = 0, scales = 0, scales_of_warp = 0, codes = 0,
      codes_of_warp = 0, bytes = 0;
};
ATTN_HOST_DEVICE ClusterMemory cluster_memory(const CodedMatrix& w, int groups, int sets,
                                              int parts_shift, int columns, int depth, int stages) {
  const int warps = 4 * groups * sets;
  const int parts = 1 << parts_shift;
  const int pairs = (cluster_pairs(w) + parts - 1) >> parts_shift;  // the most of a part
  const int records = w.inner.shift >= kWholeRow ? 1 : ((2 * pairs - 1) >> w.inner.shift) + 2;
  ClusterMemory m;
  m.left = sets * stages * columns * 2 * kClusterPair;
  m.left_of_set = (parts - 1) * (columns / 2 >> parts_shift) * 4 * 128 * groups;
  m.barriers = m.left + sets * m.left_of_set;
  m.scales = m.barriers + sets * kClusterBarrierBytes;
  m.scales_of_warp = records * w.inner.bytes;
  m.codes = m.scales + warps * m.scales_of_warp;
  m.codes_of_warp = (pairs < depth ? pairs : depth) * 1024;
  m.bytes = m.codes + warps * m.codes_of_warp;
  return m;
}

}  // namespace attn::gpu
