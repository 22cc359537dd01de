// Products of many rows of x with weights that stay codes, on mma.sync: what runs where wgmma does
// not.
#pragma once

#include "gpu/kernels/coded_decode.cuh"

namespace attn::gpu {

constexpr int kManyWarps = 4;
constexpr int kManyRows = 64;  // of x
constexpr int kManyTiles = 2;  // of W, a warp
// 144-byte rows: eight rows' 16-byte pieces of one column lie in different banks.
constexpr int kManyStride = kCodedChunk + 8;

/// One chunk of one tile of W times eight tiles of x, which lie in `xs`.
template <CodeKind kKind, typename T, CodeScaling kScaling>
__device__ __forceinline__ void multiply_chunk(const CodedGemmArguments& a,
                                               const ChunkCodes<kKind>& codes, std::int64_t tile,
                                               int chunk, std::int64_t first_row,
                                               const T (*xs)[kManyStride], float (&sum)[8][4]) {
  const int lane = threadIdx.x % 32;
  const bool has_min = kMayHaveMin<kKind> && a.x_sum != nullptr;
  const int shift = step_shift(a.w);
  ChunkRecords records;
  if (kScaling != CodeScaling::kRow) records.inner = record_of(a.w.inner, tile, chunk);
  if (has_min) {
    records.inner_min = record_of(a.w.inner_min, tile, chunk);
    records.outer_min = record_of(a.w.outer_min, tile, chunk);
  }
  if (a.w.outer.bytes > 0) records.outer = record_of(a.w.outer, tile, chunk);
  const int every = columns_together(a) / kCodedStep;
  float part[8][4] = {};
#pragma unroll
  for (int step = 0; step < 4; ++step) {
    std::uint32_t w[4];
    codes.template decode<T>(step, ChunkCodes<kKind>::template zero_of<T>(a.w), w);
    if constexpr (kScaling == CodeScaling::kWeight) {
      scale_fragment<T>(
          reinterpret_cast<const std::uint32_t*>(records.inner)[(step >> shift) * 8 + lane / 4], w);
    }
#pragma unroll
    for (int t = 0; t < 8; t += 2) {
      std::uint32_t b[4];  // two tiles of x
      load_matrix_x4(
          b, shared_address(
                 &xs[8 * t + lane % 8 + 8 * (lane / 16)][kCodedStep * step + 8 * (lane / 8 % 2)]));
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        if constexpr (kScaling == CodeScaling::kGroup) {
          mma_16x8x16<T>(part[t + i], w, b[2 * i], b[2 * i + 1]);
        } else {
          mma_16x8x16<T>(sum[t + i], w, b[2 * i], b[2 * i + 1]);
        }
      }
    }
    if (kScaling != CodeScaling::kGroup || ((step + 1) & (every - 1)) != 0) continue;
    // The end of columns that share their scales.
    const RowScales own = row_scales(a.w, records, step, lane);
#pragma unroll
    for (int t = 0; t < 8; ++t) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const std::int64_t m = first_row + 8 * t + 2 * (lane % 4) + e % 2;
        const std::int64_t at = (m * a.w.chunks + chunk) * 4 + step;
        const bool valid = m < a.m;
        const float x_scale = a.x_scale != nullptr && valid ? a.x_scale[at] : 1.0f;
        const float x_sum = has_min && valid ? sum_of_group(a.x_sum + at, every) : 0.0f;
        sum[t][e] = add_group(sum[t][e], part[t][e], x_sum, x_scale, own, e / 2);
        part[t][e] = 0.0f;
      }
    }
  }
}

/// 128 rows of W and 64 of x a block; x by cp.async in two stages.
template <CodeKind kKind, typename T, CodeScaling kScaling>
__global__ void __launch_bounds__(32 * kManyWarps)
    coded_many_rows(const __grid_constant__ CodedGemmArguments a) {
  __shared__ __align__(16) T xs[2][kManyRows][kManyStride];
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const auto chunks = static_cast<int>(a.w.chunks);
  const std::int64_t first_row = static_cast<std::int64_t>(blockIdx.y) * kManyRows;
  const std::int64_t tiles = a.w.rows / kCodedTile;
  const std::int64_t first_tile =
      (static_cast<std::int64_t>(blockIdx.x) * kManyWarps + warp) * kManyTiles;
  float sum[kManyTiles][8][4] = {};
  const auto load_x = [&](int chunk) {
    for (int i = threadIdx.x; i < kManyRows * 8; i += 32 * kManyWarps) {
      const int r = i / 8;
      const std::int64_t column = static_cast<std::int64_t>(chunk) * kCodedChunk + 8 * (i % 8);
      const bool valid = column < a.k && first_row + r < a.m;
      const T* const from =
          static_cast<const T*>(a.x) + (valid ? (first_row + r) * a.x_stride + column : 0);
      copy_async_16(shared_address(&xs[chunk % 2][r][8 * (i % 8)]), from, valid);
    }
    copy_async_commit();
  };
  const auto load_codes = [&](int chunk, ChunkCodes<kKind>(&codes)[kManyTiles]) {
#pragma unroll
    for (int i = 0; i < kManyTiles; ++i) {
      if (chunk >= chunks || first_tile + i >= tiles) continue;
      codes[i].load(record_of(a.w.codes, first_tile + i, chunk),
                    a.w.high.bytes > 0 ? record_of(a.w.high, first_tile + i, chunk) : nullptr,
                    lane);
    }
  };
  ChunkCodes<kKind> next[kManyTiles];
  load_codes(0, next);
  load_x(0);
  for (int chunk = 0; chunk < chunks; ++chunk) {
    copy_async_wait<0>();
    __syncthreads();  // this chunk of x is there, and all are done with the one before
    load_x(chunk + 1);
    ChunkCodes<kKind> codes[kManyTiles];
#pragma unroll
    for (int i = 0; i < kManyTiles; ++i) codes[i] = next[i];
    load_codes(chunk + 1, next);
#pragma unroll
    for (int i = 0; i < kManyTiles; ++i) {
      if (first_tile + i >= tiles) break;
      multiply_chunk<kKind, T, kScaling>(a, codes[i], first_tile + i, chunk, first_row,
                                         xs[chunk % 2], sum[i]);
    }
  }
  copy_async_wait<0>();
#pragma unroll
  for (int i = 0; i < kManyTiles; ++i) {
    if (first_tile + i >= tiles) break;
    float2 scale = {1.0f, 1.0f};
    if (kScaling == CodeScaling::kRow) {
      scale = reinterpret_cast<const float2*>(record_of(a.w.inner, first_tile + i, 0))[lane / 4];
    }
#pragma unroll
    for (int t = 0; t < 8; ++t) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const std::int64_t m = first_row + 8 * t + 2 * (lane % 4) + e % 2;
        const std::int64_t n = (first_tile + i) * kCodedTile + lane / 4 + 8 * (e / 2);
        if (m >= a.m || n >= a.n) continue;
        float y = sum[i][t][e];
        if (kScaling == CodeScaling::kRow) {
          y *= (e < 2 ? scale.x : scale.y) * a.w.global;
          if (a.x_scale != nullptr) y *= a.x_scale[m * a.w.chunks * 4];
        }
        store_result(a, m, n, y);
      }
    }
  }
}

template <CodeKind kKind, typename T, CodeScaling kScaling>
void launch_many(const CodedGemmArguments& a, cudaStream_t stream) {
  constexpr unsigned kTilesOfBlock = kManyWarps * kManyTiles;
  const auto tiles = static_cast<unsigned>(a.w.rows / kCodedTile);
  const dim3 grid((tiles + kTilesOfBlock - 1) / kTilesOfBlock,
                  static_cast<unsigned>((a.m + kManyRows - 1) / kManyRows));
  coded_many_rows<kKind, T, kScaling><<<grid, 32 * kManyWarps, 0, stream>>>(a);
  check_launch("coded_gemm");
}

}  // namespace attn::gpu
