// Products of few rows of x with weights that stay codes: as fast as the codes can be read. A block
// has one or two tiles of 16 rows of W, and its warps share out the columns, so that no warp waits
// for another before the end. W is the A operand, decoded in the registers that mma.sync reads; x
// is B, eight of its rows a tile.
#pragma once

#include "gpu/kernels/coded_decode.cuh"
#include "gpu/kernels/dependent_launch.cuh"

namespace attn::gpu {

constexpr int kFewWarps = 8;
// Chunks that a warp has under way, of all its tiles of W.
constexpr int kFewAhead = 8;

/// Shared memory of one warp's chunk: the records of kRows tiles, then rows of x, then their scales.
struct FewSlot {
  int tile_bytes = 0;  ///< of one tile's records
  int x_bytes = 0;     ///< of 64 columns of x
  int bytes = 0;
};

template <CodeKind kKind, typename T, CodeScaling kScaling, int kTiles, int kRows>
struct FewRows {
  static constexpr int kDepth = kFewAhead / kRows;
  static __host__ __device__ FewSlot slot(const CodedGemmArguments& a) {
    const std::int64_t rows = a.m < 8 * kTiles ? a.m : 8 * kTiles;
    FewSlot s;
    s.tile_bytes = record_offsets(a.w, kScaling != CodeScaling::kRow).end;
    s.x_bytes = static_cast<int>(rows) * 2 * kCodedChunk;
    s.bytes = kRows * s.tile_bytes + s.x_bytes;
    if (kScaling == CodeScaling::kGroup) {
      s.bytes += static_cast<int>(rows) * 16 * ((a.x_scale != nullptr) + (a.x_sum != nullptr));
    }
    return s;
  }
  static std::size_t shared_bytes(const CodedGemmArguments& a) {
    const std::size_t ring = static_cast<std::size_t>(slot(a).bytes) * kDepth * kFewWarps;
    const std::size_t sums = sizeof(float) * kFewWarps * kRows * kTiles * 128;
    return ring > sums ? ring : sums;
  }

  const CodedGemmArguments& a;
  const FewSlot s;
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const std::int64_t first_row;  // of x
  const int rows;                // of x, of this block
  const std::int64_t first_tile;
  float sum[kRows][kTiles][4] = {};

  __device__ explicit FewRows(const CodedGemmArguments& arguments)
      : a(arguments),
        s(slot(arguments)),
        first_row(static_cast<std::int64_t>(blockIdx.y) * 8 * kTiles),
        rows(static_cast<int>(a.m - first_row < 8 * kTiles ? a.m - first_row : 8 * kTiles)),
        first_tile(static_cast<std::int64_t>(blockIdx.x) * kRows) {}

  __device__ std::int64_t tile(int r) const {  // the last one again where there is none
    const std::int64_t last = a.w.rows / kCodedTile - 1;
    return first_tile + r < last ? first_tile + r : last;
  }

  __device__ __forceinline__ void copy_weight(const RecordPiece& piece, int chunk,
                                              std::uint32_t to) const {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      copy_chunk<kKind>(a.w, piece, tile(r), chunk, to + r * s.tile_bytes, lane);
    }
  }

  /// Rows of 128 bytes, their 16-byte pieces swapped so that eight rows' pieces of one column lie
  /// in different banks.
  __device__ __forceinline__ void copy_x(int chunk, std::uint32_t to) const {
    const std::uint32_t x_to = to + kRows * s.tile_bytes;
    const int piece = lane % 8;
    const std::int64_t column = static_cast<std::int64_t>(chunk) * kCodedChunk + 8 * piece;
    for (int r = lane / 8; r < rows; r += 4) {
      const bool valid = column < a.k;
      const T* const from =
          static_cast<const T*>(a.x) + (first_row + r) * a.x_stride + (valid ? column : 0);
      copy_async_16(x_to + 128 * r + 16 * (piece ^ (r & 7)), from, valid);
    }
    if (kScaling != CodeScaling::kGroup || lane >= rows) return;
    const std::int64_t steps = ((first_row + lane) * a.w.chunks + chunk) * 4;
    const std::uint32_t scales_to = x_to + s.x_bytes + 16 * lane;
    if (a.x_scale != nullptr) copy_async_16(scales_to, a.x_scale + steps, true);
    if (a.x_sum != nullptr) copy_async_16(scales_to + 16 * rows, a.x_sum + steps, true);
  }

  /// The chunk whose slot begins at `data`.
  __device__ __forceinline__ void multiply(const char* data) {
    const RecordOffsets at = record_offsets(a.w, kScaling != CodeScaling::kRow);
    const char* const x = data + kRows * s.tile_bytes;
    const auto* const scales = reinterpret_cast<const float*>(x + s.x_bytes);
    const auto offset = static_cast<float>(a.w.offset);
    const int shift = step_shift(a.w);
    std::uint32_t b[kTiles][2][4];  // two steps each
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
      const int own = 8 * t + lane % 8;
      const int row = own < rows ? own : rows - 1;  // a row too many is never stored
#pragma unroll
      for (int pair = 0; pair < 2; ++pair) {
        load_matrix_x4(b[t][pair],
                       shared_address(x + 128 * row + 16 * ((4 * pair + lane / 8) ^ (row & 7))));
      }
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const char* const records = data + r * s.tile_bytes;
      ChunkCodes<kKind> codes;
      codes.load(records, records + at.high, lane);
      if constexpr (kScaling == CodeScaling::kGroup) {
        multiply_groups(codes, records, at, scales, b, sum[r]);
        continue;
      }
      std::uint32_t scale = 0;
#pragma unroll
      for (int step = 0; step < 4; ++step) {
        std::uint32_t w[4];
        codes.template decode<T>(step, offset, w);
        if constexpr (kScaling == CodeScaling::kWeight) {
          if ((step & ((1 << shift) - 1)) == 0) {
            scale = reinterpret_cast<const std::uint32_t*>(
                records + at.inner)[(step >> shift) * 8 + lane / 4];
          }
          scale_fragment<T>(scale, w);
        }
#pragma unroll
        for (int t = 0; t < kTiles; ++t) {
          mma_16x8x16<T>(sum[r][t], w, b[t][step / 2][2 * (step % 2)],
                         b[t][step / 2][2 * (step % 2) + 1]);
        }
      }
    }
  }

  __device__ __forceinline__ void multiply_groups(const ChunkCodes<kKind>& codes,
                                                  const char* records, const RecordOffsets& at,
                                                  const float* x_scales,
                                                  const std::uint32_t (&b)[kTiles][2][4],
                                                  float (&total)[kTiles][4]) const {
    const ChunkRecords places{records + at.inner, records + at.inner_min, records + at.outer,
                              records + at.outer_min};
    const auto offset = static_cast<float>(a.w.offset);
    const int every = columns_together(a) / kCodedStep;
    float part[kTiles][4] = {};
    float x_sum[kTiles][2] = {};
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      std::uint32_t w[4];
      codes.template decode<T>(step, offset, w);
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
        mma_16x8x16<T>(part[t], w, b[t][step / 2][2 * (step % 2)],
                       b[t][step / 2][2 * (step % 2) + 1]);
        if constexpr (kMayHaveMin<kKind>) {
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            const int m = 8 * t + 2 * (lane % 4) + e;
            if (a.x_sum != nullptr) x_sum[t][e] += x_scales[4 * (rows + (m < rows ? m : 0)) + step];
          }
        }
      }
      if (((step + 1) & (every - 1)) != 0) continue;
      const RowScales own = row_scales(a.w, places, step, lane);
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int m = 8 * t + 2 * (lane % 4) + e % 2;
          const float x_scale = a.x_scale != nullptr && m < rows ? x_scales[4 * m + step] : 1.0f;
          total[t][e] = add_group(total[t][e], part[t][e], x_sum[t][e % 2], x_scale, own, e / 2);
          part[t][e] = 0.0f;
        }
        x_sum[t][0] = x_sum[t][1] = 0.0f;
      }
    }
  }

  /// The warps' sums, in order.
  __device__ void store(float* sums) const {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          sums[(((warp * kRows + r) * kTiles + t) * 4 + e) * 32 + lane] = sum[r][t][e];
        }
      }
    }
    __syncthreads();
    constexpr int kWidth = kCodedTile * kRows;
    for (int i = threadIdx.x; i < kWidth * rows; i += 32 * kFewWarps) {
      const int n = i % kWidth;
      const int m = i / kWidth;
      const int e = n % kCodedTile / 8 * 2 + m % 2;
      const int l = n % 8 * 4 + m % 8 / 2;
      float y = 0.0f;
#pragma unroll
      for (int w = 0; w < kFewWarps; ++w) {
        y += sums[(((w * kRows + n / kCodedTile) * kTiles + m / 8) * 4 + e) * 32 + l];
      }
      const std::int64_t column = first_tile * kCodedTile + n;
      if (column >= a.n) continue;
      if (kScaling == CodeScaling::kRow) {
        const float2 scale =
            reinterpret_cast<const float2*>(record_of(a.w.inner, column / kCodedTile, 0))[n % 8];
        y *= (n % kCodedTile < 8 ? scale.x : scale.y) * a.w.global;
        if (a.x_scale != nullptr) y *= a.x_scale[(first_row + m) * a.w.chunks * 4];
      }
      store_result(a, first_row + m, column, y);
    }
  }
};

template <CodeKind kKind, typename T, CodeScaling kScaling, int kTiles, int kRows>
__global__ void __launch_bounds__(32 * kFewWarps, kTiles == 1 ? 3 : 2)
    coded_few_rows(const __grid_constant__ CodedGemmArguments a) {
  using Rows = FewRows<kKind, T, kScaling, kTiles, kRows>;
  constexpr int kDepth = Rows::kDepth;
  extern __shared__ __align__(16) char shared[];
  Rows rows(a);
  const RecordPiece piece = record_piece(a.w, kScaling != CodeScaling::kRow, rows.lane);
  const auto chunks = static_cast<int>(a.w.chunks);
  const int begin = chunks * rows.warp / kFewWarps;
  const int end = chunks * (rows.warp + 1) / kFewWarps;
  const char* const ring = shared + rows.warp * kDepth * rows.s.bytes;
  const std::uint32_t ring_address = shared_address(ring);
  // Weights do not depend on the kernel before this one.
#pragma unroll
  for (int i = 0; i < kDepth; ++i) {
    if (begin + i < end) rows.copy_weight(piece, begin + i, ring_address + i * rows.s.bytes);
  }
  allow_dependent_launch();
  wait_for_previous_grid();
#pragma unroll
  for (int i = 0; i < kDepth; ++i) {
    if (begin + i < end) rows.copy_x(begin + i, ring_address + i * rows.s.bytes);
    copy_async_commit();
  }
  int slot = 0;
  for (int chunk = begin; chunk < end; ++chunk) {
    copy_async_wait<kDepth - 1>();
    __syncwarp();
    rows.multiply(ring + slot * rows.s.bytes);
    __syncwarp();
    if (chunk + kDepth < end) {
      rows.copy_weight(piece, chunk + kDepth, ring_address + slot * rows.s.bytes);
      rows.copy_x(chunk + kDepth, ring_address + slot * rows.s.bytes);
    }
    copy_async_commit();
    slot = slot + 1 == kDepth ? 0 : slot + 1;
  }
  copy_async_wait<0>();
  __syncthreads();  // the ring becomes the sums
  rows.store(reinterpret_cast<float*>(shared));
}

template <CodeKind kKind, typename T, CodeScaling kScaling, int kTiles, int kRows>
void launch_few(const CodedGemmArguments& a, cudaStream_t stream) {
  const auto kernel = coded_few_rows<kKind, T, kScaling, kTiles, kRows>;
  const std::size_t shared = FewRows<kKind, T, kScaling, kTiles, kRows>::shared_bytes(a);
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             static_cast<int>(shared)),
        "shared memory of a coded product");
  const std::int64_t tiles = a.w.rows / kCodedTile;
  const dim3 grid(static_cast<unsigned>((tiles + kRows - 1) / kRows),
                  static_cast<unsigned>((a.m + 8 * kTiles - 1) / (8 * kTiles)));
  launch_dependent(kernel, grid, 32 * kFewWarps, shared, stream, a);
}

}  // namespace attn::gpu
