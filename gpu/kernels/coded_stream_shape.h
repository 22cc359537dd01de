#pragma once

#include <cstdint>

#include "gpu/kernels/coded_gemm.h"
#include "gpu/kernels/host_device.h"

namespace attn::gpu {

/// Warps of a block, tiles of W (16 rows) that it may have, rows of x that it may have.
inline constexpr int kStreamWarps = 16;
inline constexpr int kMostStreamTiles = 8;
inline constexpr int kMostStreamRows = 16;
inline constexpr int kMostFloatStreamRows = 4;    ///< of x in float32, with gguf's weights
inline constexpr int kMostWeightStreamRows = 16;  ///< where scales enter each weight
/// Up to so many rows of codes two blocks of a product share a multiprocessor, where they fit.
inline constexpr int kMostPairedRows = 4;
/// From more rows of x on such a block has fewer tiles, whose sums stay in registers.
inline constexpr int kMostUnheldRows = 8;
inline constexpr int kMostHeldTiles = 3;
/// Up to so many rows are turned to codes by every block; for more a pass before it does.
inline constexpr int kMostFusedRows = 2;
/// Stages that a warp has under way in shared memory, of 256 columns and of 128.
inline constexpr int kStreamDepth = 2;
inline constexpr int kShortStreamDepth = 3;
/// Jobs that a warp of the kernel of one row has under way, and bytes of each: codes of four
/// chunks, three or two words of each lane.
inline constexpr int kOneRowDepth = 2;
inline constexpr int kOneRowCodesJob = 4 * 512 + 3 * 128;
inline constexpr int kOneRowWeightsJob = 4 * 512 + 2 * 128;
/// Shared memory of a multiprocessor of compute capability 9.0, and of it what the system keeps of
/// each block's.
inline constexpr std::size_t kSharedOfMultiprocessor = 228 * 1024;
inline constexpr std::size_t kSharedOfSystem = 1024;
/// Columns of a unit of x. Those of a stage of W are as many, or half of them.
inline constexpr int kStreamUnit = 256;

/// The codes of int8 activations as the blocks of a product hold them in shared memory:
///   codes   [row][unit][4 chunks][4 lanes][4 steps][4]: a lane of mma.sync reads its four words of
///           a chunk, one for each 16 columns, with one load. Byte i of the word of lane t is
///           column 2 t + i / 2 + 8 (i % 2), as packed weights of 4 bits have them. 64 bytes
///           between rows' ends, so that neighbouring rows lie in other banks.
///   scales  [block][rows of a product]: float32, of 256 columns or 32
///   sums    [unit][row][2][16] where weights have mins: of the codes of each group of columns, 16
///           or 32, as 128 times the second byte plus the first
struct StreamImage {
  int rows = 0;
  int room = 0;  ///< rows of scales: 1, 8 or 16, what the product's instance reads
  int units = 0;
  int block = 0;                        ///< columns that share a scale: 256 or 32
  int group = 0;                        ///< columns that share a sum: 16 or 32; 0: there are none
  int stride = 0;                       ///< bytes of a row of codes
  int scales = 0, sums = 0, bytes = 0;  ///< offsets; all of it, a multiple of 16
};
ATTN_HOST_DEVICE StreamImage stream_image(int rows, std::int64_t k, int block, int group) {
  StreamImage image;
  image.rows = rows;
  image.room = rows == 1 ? 1 : rows <= 8 ? 8 : 16;
  image.units = static_cast<int>((k + kStreamUnit - 1) / kStreamUnit);
  image.block = block;
  image.group = group;
  image.stride = image.units * kStreamUnit + 64;
  image.scales = rows * image.stride;
  const int scales = 4 * image.room * image.units * (kStreamUnit / block);
  image.sums = image.scales + (scales + 15) / 16 * 16;
  image.bytes = image.sums + (group > 0 ? 32 * rows * image.units : 0);
  return image;
}

/// Where the word of lane `t` for the 16 columns number `step` of a row's unit lies in its codes.
ATTN_HOST_DEVICE int stream_word(int unit, int step, int t) {
  return kStreamUnit * unit + 64 * (step / 4) + 16 * t + 4 * (step % 4);
}

/// How weights of one kind lie in a stage, the records of its chunks: codes, then the other planes.
/// kSuper: scales of groups are bytes, and 256 columns have another (the k-quants); else each 32
/// columns have one of 16 bits or fewer (q4_0, q8_0).
template <CodeKind kKind, bool kSuper>
struct StreamStage {
  static constexpr bool kBytes = kKind == CodeKind::kI8;
  static constexpr bool kLongGroups = false;  // scales of columns of several stages
  static constexpr bool kWhole = kSuper;      // no stage has fewer chunks
  static constexpr int kDepth = kBytes ? kShortStreamDepth : kStreamDepth;
  static constexpr int kAhead = 0;  ///< stages behind the ring that the L2 is asked for at once
  static constexpr bool kHasOuter = kSuper;
  static constexpr bool kHasMin = kSuper && kKind != CodeKind::kU6;
  static constexpr int kChunks = kBytes ? 2 : 4;
  static constexpr int kGroup = kKind == CodeKind::kU6 ? 16 : 32;
  static constexpr int kCodeBytes = kBytes ? 1024 : 512;  // of a chunk
  static constexpr int kHighBytes = kKind == CodeKind::kU5 ? 128 : kKind == CodeKind::kU6 ? 256 : 0;
  static constexpr int kHigh = kChunks * kCodeBytes;
  static constexpr int kInner = kHigh + kChunks * kHighBytes;
  static constexpr int kInnerBytes =  // the most: of 16 bits where they are not bytes
      kChunks * (kCodedChunk / kGroup) * kCodedTile * (kSuper ? 1 : 2);
  static constexpr int kInnerMin = kInner + kInnerBytes;
  static constexpr int kOuter = kInnerMin + (kHasMin ? kInnerBytes : 0);
  static constexpr int kOuterMin = kOuter + (kSuper ? 64 : 0);
  static constexpr int kEnd = kOuterMin + (kHasMin ? 64 : 0);
  static_assert(kEnd - kInner <= 512);  // one copy a lane
};

/// The same of weights of 4 bits whose scales enter each of them (gptq). kOneScale: the columns of
/// a chunk share theirs.
template <bool kOneScale>
struct WeightStage {
  static constexpr bool kBytes = false, kHasOuter = false, kHasMin = false;
  static constexpr bool kLongGroups = true, kWhole = false;
  static constexpr int kDepth = kStreamDepth;
  static constexpr int kAhead = 8;
  static constexpr int kChunks = 4;
  static constexpr int kCodeBytes = 512;
  static constexpr int kHighBytes = 0;
  static constexpr int kHigh = kChunks * kCodeBytes;
  static constexpr int kInner = kHigh;
  static constexpr int kEnd = kInner + 2 * kCodedTile * kChunks * (kOneScale ? 1 : 4);
  static constexpr int kInnerMin = kEnd, kOuter = kEnd, kOuterMin = kEnd;
};
/// x in shared memory beside them: bytes of a row of whole stages, whose neighbours lie in other
/// banks.
ATTN_HOST_DEVICE int weight_x_stride(const CodedMatrix& w) {
  return static_cast<int>((w.chunks + 3) / 4) * 4 * 2 * kCodedChunk + 16;
}

/// Of 256 columns, that x in float32 takes in shared memory.
ATTN_HOST_DEVICE int float_stream_units(std::int64_t k) {
  return static_cast<int>((k + kStreamUnit - 1) / kStreamUnit);
}

/// Jobs [first, end) of a warp, of a block's `jobs`: each is a stage of a tile; of a stage all
/// tiles one after the other, so that few warps need the same columns of x. The sums of a job are
/// added to those of the warp's earlier jobs of the tile.
ATTN_HOST_DEVICE int first_stream_job(int jobs, int warp) {
  return static_cast<int>(static_cast<std::int64_t>(jobs) * warp / kStreamWarps);
}

/// Whether each warp's jobs are those of whole units of x, so that it shares none with another.
ATTN_HOST_DEVICE bool shares_no_unit(int jobs, int jobs_of_unit) {
  return jobs % (kStreamWarps * jobs_of_unit) == 0;
}

/// Which products are the streams', of those that they can take.
enum class CodedStreams : std::uint8_t {
  kWhereTheyPay,  ///< stream_pays()
  kAlways,
  kNever,
};

/// How a product is shared out; decided on the host.
struct CodedStreamPlan {
  bool taken = false;
  /// One row by a kernel of its own (coded_stream_one): the first `early` blocks ask the L2 for the
  /// weights of the others.
  bool one_row = false;
  int early = 0;
  bool floats = false;  ///< x stays float32, and weights become it
  bool fused = false;   ///< every block makes the codes of x itself, or there are none
  int tiles = 0;        ///< of a block
  int blocks = 0;
  std::size_t shared_bytes = 0;
  std::size_t image_bytes = 0;  ///< of workspace, where the codes are made before
};

}  // namespace attn::gpu
