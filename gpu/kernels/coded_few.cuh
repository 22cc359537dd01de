// Products of few rows of x with weights that stay codes. A block has two tiles of 16 rows of W,
// and its warps share out the columns, so that no warp waits for another before the end. W is the A
// operand, decoded in the registers that mma.sync reads; x is B, eight of its rows a tile.
#pragma once

#include "gpu/kernels/coded_decode.cuh"
#include "gpu/kernels/dependent_launch.cuh"
#include "gpu/kernels/shared_allowance.cuh"

namespace attn::gpu {

constexpr int kFewWarps = 8;
constexpr int kFewTiles = 2;  // of W, a block
// Chunks that a warp has under way.
constexpr int kFewDepth = 4;

/// Shared memory of one warp's chunk: the records of its tiles, then rows of x, then their scales.
struct FewSlot {
  int tile_bytes = 0;  ///< of one tile's records
  int x_bytes = 0;     ///< of 64 columns of x
  int bytes = 0;
};

/// kTiles: of eight rows of x. kOneScale: a chunk's columns share their scales (kWeight alone).
template <CodeKind kKind, typename T, CodeScaling kScaling, int kTiles, bool kOneScale>
struct FewRows {
  static constexpr int kRows = kFewTiles;
  static constexpr int kDepth = kFewDepth;
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
  const RecordOffsets at;
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const std::int64_t first_row;  // of x
  const int rows;                // of x, of this block
  const std::int64_t first_tile;
  const RecordPiece piece;
  const std::uint32_t zero;
  TileCopy<kKind> tiles[kRows];
  const T* x_from;      // this lane's 16 bytes of chunk 0
  int x_at[kTiles][2];  // this lane's rows for ldmatrix, of the first and the last 32 columns
  float sum[kRows][kTiles][4] = {};

  __device__ explicit FewRows(const CodedGemmArguments& arguments)
      : a(arguments),
        s(slot(arguments)),
        at(record_offsets(a.w, kScaling != CodeScaling::kRow)),
        first_row(static_cast<std::int64_t>(blockIdx.y) * 8 * kTiles),
        rows(static_cast<int>(a.m - first_row < 8 * kTiles ? a.m - first_row : 8 * kTiles)),
        first_tile(static_cast<std::int64_t>(blockIdx.x) * kRows),
        piece(record_piece(a.w, kScaling != CodeScaling::kRow, lane)),
        zero(ChunkCodes<kKind>::template zero_of<T>(a.w)),
        x_from(static_cast<const T*>(a.x) + (first_row + lane / 8) * a.x_stride + 8 * (lane % 8)) {
    const std::int64_t last = a.w.rows / kCodedTile - 1;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {  // the last one again where there is none
      tiles[r] = TileCopy<kKind>(a.w, piece, first_tile + r < last ? first_tile + r : last, lane);
    }
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
      const int own = 8 * t + lane % 8;
      const int row = own < rows ? own : rows - 1;  // a row too many is never stored
      for (int half = 0; half < 2; ++half) {
        x_at[t][half] = kRows * s.tile_bytes + 128 * row + 16 * ((4 * half + lane / 8) ^ (row & 7));
      }
    }
  }

  __device__ __forceinline__ void copy_weight(int chunk, std::uint32_t to) const {
#pragma unroll
    for (int r = 0; r < kRows; ++r) tiles[r](piece, chunk, to + r * s.tile_bytes + 16 * lane);
  }

  /// Rows of 128 bytes, their 16-byte pieces swapped so that eight rows' pieces of one column lie
  /// in different banks.
  __device__ __forceinline__ void copy_x(int chunk, std::uint32_t to) const {
    const std::uint32_t x_to = to + kRows * s.tile_bytes;
    const bool valid = chunk * kCodedChunk + 8 * (lane % 8) < a.k;
    const T* const from = valid ? x_from + chunk * kCodedChunk : static_cast<const T*>(a.x);
#pragma unroll
    for (int i = 0; i < 2 * kTiles; ++i) {
      const int r = lane / 8 + 4 * i;
      if (r < rows) {
        copy_async_16(x_to + 128 * r + 16 * ((lane % 8) ^ (r & 7)),
                      from + (valid ? 4 * i * a.x_stride : 0), valid);
      }
    }
    if (kScaling != CodeScaling::kGroup || lane >= rows) return;
    const std::int64_t steps = ((first_row + lane) * a.w.chunks + chunk) * 4;
    const std::uint32_t scales_to = x_to + s.x_bytes + 16 * lane;
    if (a.x_scale != nullptr) copy_async_16(scales_to, a.x_scale + steps, true);
    if (a.x_sum != nullptr) copy_async_16(scales_to + 16 * rows, a.x_sum + steps, true);
  }

  /// The chunk whose slot begins at `data`.
  __device__ __forceinline__ void multiply(const char* data) {
    const std::uint32_t address = shared_address(data);
    const int shift = kOneScale ? 2 : step_shift(a.w);
    std::uint32_t b[kTiles][2][4];  // two steps each
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
      load_matrix_x4(b[t][0], address + x_at[t][0]);
      load_matrix_x4(b[t][1], address + x_at[t][1]);
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const char* const records = data + r * s.tile_bytes;
      ChunkCodes<kKind> codes;
      codes.load(records, records + at.high, lane);
      if constexpr (kScaling == CodeScaling::kGroup) {
        multiply_groups(codes, records, data, b, sum[r]);
        continue;
      }
      const auto* const scales =
          reinterpret_cast<const std::uint32_t*>(records + at.inner) + lane / 4;
      std::uint32_t scale = 0;
      if (kScaling == CodeScaling::kWeight && kOneScale) scale = scales[0];
      if constexpr (kKind == CodeKind::kU4 && kOneScale && TypeOf<T>::value == Type::kBFloat16) {
        if (a.w.small_scales) {
          const std::uint32_t words[4] = {codes.low.x, codes.low.y, codes.low.z, codes.low.w};
          const SmallScales own(scale);
#pragma unroll
          for (int step = 0; step < 4; ++step) {
            std::uint32_t w[4];
            own.decode(words[step], w);
            add_step(w, step, b, sum[r]);
          }
          continue;
        }
      }
#pragma unroll
      for (int step = 0; step < 4; ++step) {
        std::uint32_t w[4];
        codes.template decode<T>(step, zero, w);
        if constexpr (kScaling == CodeScaling::kWeight) {
          if (!kOneScale) scale = scales[(step >> shift) * 8];
          scale_fragment<T>(scale, w);
        }
        add_step(w, step, b, sum[r]);
      }
    }
  }
  static __device__ __forceinline__ void add_step(const std::uint32_t (&w)[4], int step,
                                                  const std::uint32_t (&b)[kTiles][2][4],
                                                  float (&total)[kTiles][4]) {
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
      mma_16x8x16<T>(total[t], w, b[t][step / 2][2 * (step % 2)],
                     b[t][step / 2][2 * (step % 2) + 1]);
    }
  }

  __device__ __forceinline__ void multiply_groups(const ChunkCodes<kKind>& codes,
                                                  const char* records, const char* slot_data,
                                                  const std::uint32_t (&b)[kTiles][2][4],
                                                  float (&total)[kTiles][4]) const {
    const ChunkRecords places{records + at.inner, records + at.inner_min, records + at.outer,
                              records + at.outer_min};
    const auto* const x_scales =
        reinterpret_cast<const float*>(slot_data + kRows * s.tile_bytes + s.x_bytes);
    const int every = columns_together(a) / kCodedStep;
    float part[kTiles][4] = {};
    float x_sum[kTiles][2] = {};
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      std::uint32_t w[4];
      codes.template decode<T>(step, zero, w);
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

template <CodeKind kKind, typename T, CodeScaling kScaling, int kTiles, bool kOneScale>
__global__ void __launch_bounds__(32 * kFewWarps, 2)
    coded_few_rows(const __grid_constant__ CodedGemmArguments a) {
  constexpr int kDepth = kFewDepth;
  extern __shared__ __align__(16) char shared[];
  FewRows<kKind, T, kScaling, kTiles, kOneScale> rows(a);
  const auto chunks = static_cast<int>(a.w.chunks);
  const int begin = chunks * rows.warp / kFewWarps;
  const int end = chunks * (rows.warp + 1) / kFewWarps;
  const char* const ring = shared + rows.warp * kDepth * rows.s.bytes;
  const std::uint32_t ring_address = shared_address(ring);
  // Weights do not depend on the kernel before this one.
#pragma unroll
  for (int i = 0; i < kDepth; ++i) {
    if (begin + i < end) rows.copy_weight(begin + i, ring_address + i * rows.s.bytes);
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
    rows.multiply(ring + slot);
    __syncwarp();
    if (chunk + kDepth < end) {
      rows.copy_weight(chunk + kDepth, ring_address + slot);
      rows.copy_x(chunk + kDepth, ring_address + slot);
    }
    copy_async_commit();
    slot += rows.s.bytes;
    if (slot == kDepth * rows.s.bytes) slot = 0;
  }
  copy_async_wait<0>();
  __syncthreads();  // the ring becomes the sums
  rows.store(reinterpret_cast<float*>(shared));
}

template <CodeKind kKind, typename T, CodeScaling kScaling, int kTiles, bool kOneScale>
void launch_few_instance(const CodedGemmArguments& a, cudaStream_t stream) {
  const auto kernel = coded_few_rows<kKind, T, kScaling, kTiles, kOneScale>;
  const std::size_t shared = FewRows<kKind, T, kScaling, kTiles, kOneScale>::shared_bytes(a);
  allow_dynamic_shared(reinterpret_cast<const void*>(kernel), shared);
  const std::int64_t tiles = a.w.rows / kCodedTile;
  const dim3 grid(static_cast<unsigned>((tiles + kFewTiles - 1) / kFewTiles),
                  static_cast<unsigned>((a.m + 8 * kTiles - 1) / (8 * kTiles)));
  launch_dependent(kernel, grid, 1, 32 * kFewWarps, shared, stream, a);
}

template <CodeKind kKind, typename T, CodeScaling kScaling>
void launch_few(const CodedGemmArguments& a, cudaStream_t stream) {
  if constexpr (kScaling == CodeScaling::kWeight) {
    if (a.w.group_shift >= 6) {
      return a.m <= 8 ? launch_few_instance<kKind, T, kScaling, 1, true>(a, stream)
                      : launch_few_instance<kKind, T, kScaling, 2, true>(a, stream);
    }
  }
  if (a.m <= 8) return launch_few_instance<kKind, T, kScaling, 1, false>(a, stream);
  launch_few_instance<kKind, T, kScaling, 2, false>(a, stream);
}

}  // namespace attn::gpu
