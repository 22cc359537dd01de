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
/// that read their piece `half` then touch all banks once, and a copy of 32 pieces still fills whole
/// lines from whole lines.
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
        piece_shift = plane.shift;
        piece_chunk = records > 1 ? at / plane.bytes << plane.shift : 0;
        piece_to = to + at;
      }
      at -= plane.bytes * records;
    };
    take(w.inner, Stage::kInner);
    if (Stage::kHasMin) take(w.inner_min, Stage::kInnerMin);
    if (Stage::kHasOuter) take(w.outer, Stage::kOuter);
    if (Stage::kHasMin) take(w.outer_min, Stage::kOuterMin);
  }

  __device__ __forceinline__ void operator()(std::int64_t tile, int stage, std::uint32_t to) const {
    const int first = stage * Stage::kChunks;
    const int chunks = static_cast<int>(w.chunks) - first;  // there are, maybe more than a stage's
    const char* const codes = static_cast<const char*>(w.codes.data) + tile * w.codes.tile_bytes +
                              static_cast<std::int64_t>(first) * Stage::kCodeBytes +
                              16 * (Stage::kBytes ? lane ^ (lane >> 3 & 1) : lane);
    const std::uint32_t place = to + 16 * lane;
#pragma unroll
    for (int c = 0; c < Stage::kChunks; ++c) {
      if (c >= chunks) break;
      copy_async_16(place + c * Stage::kCodeBytes, codes + c * Stage::kCodeBytes, true);
      if (Stage::kBytes) {
        copy_async_16(place + c * Stage::kCodeBytes + 512, codes + c * Stage::kCodeBytes + 512,
                      true);
      }
    }
    if (Stage::kHighBytes > 0) {  // stages are whole where there are some
      const char* const high = static_cast<const char*>(w.high.data) + tile * w.high.tile_bytes +
                               static_cast<std::int64_t>(first) * Stage::kHighBytes + 16 * lane;
#pragma unroll
      for (int i = 0; i < Stage::kChunks * Stage::kHighBytes / 512; ++i) {
        copy_async_16(to + Stage::kHigh + 16 * lane + 512 * i, high + 512 * i, true);
      }
    }
    if (piece != nullptr && piece_chunk < chunks) {
      const std::int64_t record = Stage::kLongGroups ? first >> piece_shift : stage;
      copy_async_16(to + piece_to, piece + tile * piece_tile + record * piece_bytes, true);
    }
  }
};

/// [tile][warp][row of x][row of W]: a warp has sums of the tiles that its stages are of, and
/// zeros.
__device__ __forceinline__ int stream_sums(int tiles, int rows) {
  return tiles * kStreamWarps * kCodedTile * rows;
}

/// The warps' sums of each tile, in order, and out.
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

/// A block's product, of `rows` rows of x in `x_bytes` of shared memory. bring(to) brings them
/// there; sums_of(x) makes what a warp adds its stages to.
template <typename Stage, typename Bring, typename Sums>
__device__ __forceinline__ void stream_product(const CodedGemmArguments& a, int rows, int x_bytes,
                                               int tiles_of_block, const Bring& bring,
                                               const Sums& sums_of) {
  extern __shared__ unsigned char memory[];
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int warp = static_cast<int>(threadIdx.x / 32);
  const std::int64_t first_tile = static_cast<std::int64_t>(blockIdx.x) * tiles_of_block;
  const std::int64_t left = a.w.rows / kCodedTile - first_tile;
  const int tiles = left < tiles_of_block ? static_cast<int>(left) : tiles_of_block;
  const int stages = (static_cast<int>(a.w.chunks) + Stage::kChunks - 1) / Stage::kChunks;
  const int begin = first_stream_job(tiles * stages, warp);
  const int end = first_stream_job(tiles * stages, warp + 1);
  char* const ring = reinterpret_cast<char*>(memory) + warp * kStreamDepth * Stage::kEnd;
  char* const x = reinterpret_cast<char*>(memory) + kStreamWarps * kStreamDepth * Stage::kEnd;
  auto* const sums = reinterpret_cast<float*>(x + x_bytes);
  const StreamCopies<Stage> copies(a.w, lane);
  int next_tile = begin / stages;
  int next_stage = begin % stages;
  const auto copy_next = [&](int slot) {
    copies(first_tile + next_tile, next_stage, shared_address(ring + slot * Stage::kEnd));
    if (++next_stage < stages) return;
    next_stage = 0;
    ++next_tile;
  };
  // Weights do not depend on the kernel before this one.
#pragma unroll
  for (int i = 0; i < kStreamDepth; ++i) {
    if (begin + i < end) copy_next(i);
    copy_async_commit();
  }
  allow_dependent_launch();
  for (int i = static_cast<int>(threadIdx.x); i < stream_sums(tiles, rows); i += kStreamThreads) {
    sums[i] = 0.0f;
  }
  wait_for_previous_grid();
  bring(x);
  __syncthreads();
  auto own = sums_of(x);
  int tile = begin / stages;
  int stage = begin % stages;
  int slot = 0;
  for (int job = begin; job < end; ++job) {
    copy_async_wait<kStreamDepth - 1>();
    __syncwarp();
    own.add(ring + slot * Stage::kEnd, stage);
    __syncwarp();
    if (job + kStreamDepth < end) copy_next(slot);
    copy_async_commit();
    slot = slot + 1 == kStreamDepth ? 0 : slot + 1;
    if (++stage < stages && job + 1 < end) continue;
    own.flush(sums + (tile * kStreamWarps + warp) * kCodedTile * rows);
    stage = 0;
    ++tile;
  }
  __syncthreads();
  store_stream(a, rows, sums, first_tile, tiles);
}

}  // namespace attn::gpu
