// The stream that few rows of x and weights that stay codes are multiplied by: a block has a few
// tiles of W; its warps share out their stages evenly, each with a ring of its own. What a stage is
// multiplied by is in coded_stream_bytes.cuh and coded_stream_weights.cuh.
#pragma once

#include "gpu/kernels/coded_store.cuh"
#include "gpu/kernels/coded_stream_shape.h"
#include "gpu/kernels/mma.cuh"

namespace attn::gpu {

constexpr int kStreamThreads = 32 * kStreamWarps;

/// A chunk of codes of bytes in a stage: a lane's 32 bytes are pieces 2 l and 2 l + 1 of 16 bytes,
/// and every second line of 128 bytes holds its pairs of pieces the other way round. Eight lanes
/// that read their piece `half` then touch all banks once, and a copy of 32 pieces still fills
/// whole lines from whole lines.
__device__ __forceinline__ int byte_piece(int lane, int half) {
  return 32 * lane + 16 * (half ^ (lane >> 2 & 1));
}

/// A lane's copies of the stages of W.
template <typename Stage>
struct StreamCopies {
  const CodedMatrix& w;
  const int lane;
  const char* piece = nullptr;  ///< 16 bytes of the other planes, of tile 0 and stage 0, or none
  std::int64_t piece_tile = 0;
  int piece_bytes = 0;  ///< from stage to stage, or of its record where that is of several
  int piece_shift = 0;  ///< logarithm of the chunks of such a record
  int piece_chunk = 0;  ///< the first of its record's, in a stage
  int piece_to = 0;

  __device__ explicit StreamCopies(const CodedMatrix& matrix, int own_lane)
      : w(matrix), lane(own_lane) {
    int at = 16 * lane;
    const auto take = [&](const CodedPlane& plane, int to) {
      const int records = Stage::kChunks >> plane.shift > 0 ? Stage::kChunks >> plane.shift : 1;
      if (piece == nullptr && at >= 0 && at < plane.bytes * records) {
        piece = static_cast<const char*>(plane.data) + at;
        piece_tile = plane.tile_bytes;
        piece_bytes = plane.bytes * (Stage::kLongGroups ? 1 : records);
        if (Stage::kLongGroups) piece_shift = plane.shift;
        if (!Stage::kWhole) {  // no division: that is a routine
          for (int r = 1; r < Stage::kChunks; ++r) piece_chunk += at >= r * plane.bytes ? 1 : 0;
          piece_chunk <<= plane.shift;
        }
        piece_to = to + at;
      }
      at -= plane.bytes * records;
    };
    take(w.inner, Stage::kInner);
    if (Stage::kHasMin) take(w.inner_min, Stage::kInnerMin);
    if (Stage::kHasOuter) take(w.outer, Stage::kOuter);
    if (Stage::kHasMin) take(w.outer_min, Stage::kOuterMin);
  }

  __device__ __forceinline__ const char* codes_of(std::int64_t tile, int stage) const {
    return static_cast<const char*>(w.codes.data) + tile * w.codes.tile_bytes +
           static_cast<std::int64_t>(stage) * (Stage::kChunks * Stage::kCodeBytes);
  }
  __device__ __forceinline__ const char* high_of(std::int64_t tile, int stage) const {
    return static_cast<const char*>(w.high.data) + tile * w.high.tile_bytes +
           static_cast<std::int64_t>(stage) * (Stage::kChunks * Stage::kHighBytes);
  }
  __device__ __forceinline__ const char* piece_of(std::int64_t tile, int stage) const {
    const std::int64_t record = Stage::kLongGroups ? stage * Stage::kChunks >> piece_shift : stage;
    return piece + tile * piece_tile + record * piece_bytes;
  }
  /// Chunks that there are from a stage's first on: maybe more than a stage's.
  __device__ __forceinline__ int chunks_from(int stage) const {
    return static_cast<int>(w.chunks) - stage * Stage::kChunks;
  }

  __device__ __forceinline__ void operator()(std::int64_t tile, int stage, std::uint32_t to) const {
    constexpr int kPieces = Stage::kChunks * Stage::kCodeBytes / 512;
    const int chunks = chunks_from(stage);
    const int pieces = chunks * (Stage::kCodeBytes / 512);  // there are, of 512 bytes
    const char* const codes =
        codes_of(tile, stage) + 16 * (Stage::kBytes ? lane ^ (lane >> 3 & 1) : lane);
    const std::uint32_t place = to + 16 * lane;
    if (Stage::kWhole || pieces >= kPieces) {
#pragma unroll
      for (int i = 0; i < kPieces; ++i) copy_async_16(place + 512 * i, codes + 512 * i, true);
    } else {
#pragma unroll 1
      for (int i = 0; i < pieces; ++i) copy_async_16(place + 512 * i, codes + 512 * i, true);
    }
    if (Stage::kHighBytes > 0) {
      const char* const high = high_of(tile, stage) + 16 * lane;
#pragma unroll
      for (int i = 0; i < Stage::kChunks * Stage::kHighBytes / 512; ++i) {
        copy_async_16(place + Stage::kHigh + 512 * i, high + 512 * i, true);
      }
    }
    if (piece != nullptr && (Stage::kWhole || piece_chunk < chunks)) {
      copy_async_16(to + piece_to, piece_of(tile, stage), true);
    }
  }

  /// Asks the L2 for a stage that there is no room for yet.
  __device__ __forceinline__ void ask(std::int64_t tile, int stage) const {
    const int chunks = chunks_from(stage);
    if (lane == 0) {
      prefetch_stretch_to_l2(
          codes_of(tile, stage),
          static_cast<unsigned>((chunks < Stage::kChunks ? chunks : Stage::kChunks) *
                                Stage::kCodeBytes));
      if (Stage::kHighBytes > 0) {
        prefetch_stretch_to_l2(high_of(tile, stage), Stage::kChunks * Stage::kHighBytes);
      }
    }
    if (piece != nullptr && piece_chunk < chunks) prefetch_to_l2(piece_of(tile, stage));
  }
};

/// The warps' sums [tile][warp][row of x][row of W] of each tile, in order, and out. A warp has
/// sums of the tiles that its stages are of, and zeros.
__device__ __forceinline__ void store_stream(const CodedGemmArguments& a, int rows,
                                             const float* sums, std::int64_t first_tile,
                                             int tiles) {
  const int of_warp = kCodedTile * rows;
  for (int i = static_cast<int>(threadIdx.x); i < of_warp * tiles; i += kStreamThreads) {
    const int tile = i / of_warp;
    const int at = i % of_warp;
    const float* const from = sums + tile * kStreamWarps * of_warp + at;
    float y = 0.0f;
#pragma unroll
    for (int warp = 0; warp < kStreamWarps; ++warp) y += from[warp * of_warp];
    const std::int64_t column = (first_tile + tile) * kCodedTile + at % kCodedTile;
    if (column < a.n) store_result(a, at / kCodedTile, column, y);
  }
}

/// Zeros in a warp's sums.
__device__ __forceinline__ void clear_stream_sums(float* sums, int tiles, int of_warp, int warp,
                                                  int lane) {
#pragma unroll 1
  for (int tile = 0; tile < tiles; ++tile) {
    float* const own = sums + (tile * kStreamWarps + warp) * of_warp;
#pragma unroll 1
    for (int i = lane; i < of_warp; i += 32) own[i] = 0.0f;
  }
}

/// Jobs one after the other: of each stage all tiles of the block.
struct StreamPlace {
  int stage, tile;
  __device__ __forceinline__ void advance(int tiles) {
    if (++tile < tiles) return;
    tile = 0;
    ++stage;
  }
};

/// A block's product, of `rows` rows of x in `x_bytes` of shared memory. A warp brings the columns
/// of x whose first job is its own: bring(to, first, end) brings those of stages [first, end)
/// there; sums_of(x) makes what it adds its stages to. kHeld: a warp keeps the sums of all tiles
/// (kMostHeldTiles) in registers, and they take the place of x at the end.
template <typename Stage, bool kHeld, typename Bring, typename Sums>
__device__ __forceinline__ void stream_product(const CodedGemmArguments& a, int rows, int x_bytes,
                                               int tiles_of_block, const Bring& bring,
                                               const Sums& sums_of) {
  extern __shared__ unsigned char memory[];
  constexpr int kDepth = Stage::kDepth;
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int warp = static_cast<int>(threadIdx.x / 32);
  const std::int64_t first_tile = static_cast<std::int64_t>(blockIdx.x) * tiles_of_block;
  const int left = static_cast<int>(a.w.rows / kCodedTile - first_tile);
  const int tiles = left < tiles_of_block ? left : tiles_of_block;
  const int stages = (static_cast<int>(a.w.chunks) + Stage::kChunks - 1) / Stage::kChunks;
  const int begin = first_stream_job(tiles * stages, warp);
  const int end = first_stream_job(tiles * stages, warp + 1);
  char* const ring = reinterpret_cast<char*>(memory) + warp * kDepth * Stage::kEnd;
  char* const x = reinterpret_cast<char*>(memory) + kStreamWarps * kDepth * Stage::kEnd;
  auto* const sums = reinterpret_cast<float*>(kHeld ? x : x + x_bytes);
  const StreamCopies<Stage> copies(a.w, lane);
  StreamPlace own_place;
  own_place.stage = static_cast<int>(static_cast<unsigned>(begin) / static_cast<unsigned>(tiles));
  own_place.tile = begin - own_place.stage * tiles;
  StreamPlace next = own_place;
  const auto copy_next = [&](int slot) {
    copies(first_tile + next.tile, next.stage, shared_address(ring + slot * Stage::kEnd));
    next.advance(tiles);
  };
  // Weights do not depend on the kernel before this one.
#pragma unroll
  for (int i = 0; i < kDepth; ++i) {
    if (begin + i < end) copy_next(i);
    copy_async_commit();
  }
  if constexpr (Stage::kAhead > 0) {
    StreamPlace later = next;
#pragma unroll 1
    for (int job = begin + kDepth; job < end && job < begin + kDepth + Stage::kAhead; ++job) {
      copies.ask(first_tile + later.tile, later.stage);
      later.advance(tiles);
    }
  }
  allow_dependent_launch();
  if (!kHeld) clear_stream_sums(sums, tiles, kCodedTile * rows, warp, lane);
  // Of units of x, which may be several stages' and several warps', those that begin here.
  constexpr int kStagesOfUnit = kStreamUnit / (Stage::kChunks * kCodedChunk);
  const int jobs_of_unit = tiles * kStagesOfUnit;
  const auto first_unit = [&](int job) {
    return static_cast<int>(static_cast<unsigned>(job + jobs_of_unit - 1) /
                            static_cast<unsigned>(jobs_of_unit));
  };
  const int bring_end = min(first_unit(end) * kStagesOfUnit, stages);
  const int bring_first = first_unit(begin) * kStagesOfUnit;
  wait_for_previous_grid();
  if (bring_first < bring_end) bring(x, bring_first, bring_end);
  if (shares_no_unit(tiles * stages, jobs_of_unit)) {
    __syncwarp();
  } else {
    __syncthreads();
  }
  auto own = sums_of(x);
  int slot = 0;
  int job = begin;
  const auto add_job = [&](int stage) {
    copy_async_wait<kDepth - 1>();
    __syncwarp();
    own.add(ring + slot * Stage::kEnd, stage);
    __syncwarp();
    if (job + kDepth < end) copy_next(slot);
    copy_async_commit();
    slot = slot + 1 == kDepth ? 0 : slot + 1;
    ++job;
  };
  const int of_warp = kCodedTile * rows;
  if constexpr (kHeld) {
    typename decltype(own)::Held held[kMostHeldTiles];
    for (int stage = own_place.stage; job < end; ++stage) {
#pragma unroll
      for (int tile = 0; tile < kMostHeldTiles; ++tile) {
        if (tile >= tiles || stage * tiles + tile < begin || job >= end) continue;
        add_job(stage);
        own.take(held[tile]);
      }
    }
    __syncthreads();  // nobody reads x any more
#pragma unroll
    for (int tile = 0; tile < kMostHeldTiles; ++tile) {
      if (tile < tiles) own.put(held[tile], sums + (tile * kStreamWarps + warp) * of_warp);
    }
  } else {
    while (job < end) {
      add_job(own_place.stage);
      own.flush(sums + (own_place.tile * kStreamWarps + warp) * of_warp);
      own_place.advance(tiles);
    }
  }
  __syncthreads();
  store_stream(a, rows, sums, first_tile, tiles);
}

}  // namespace attn::gpu
