#include "gpu/device/check.h"
#include "gpu/faults/fault_switch.h"
#include "gpu/kernels/element.cuh"
#include "gpu/kernels/gemm.h"
#include "gpu/kernels/mma.cuh"

namespace attn::gpu {
namespace {

__device__ __forceinline__ float finish(float sum, const GemmArguments& a, std::int64_t column) {
  if (ATTN_FAULT(clip_activations_before_bias, a.clip < kNoBound && a.bias != nullptr)) {
    return fminf(fmaxf(sum, -a.clip), a.clip) + a.bias[column];
  }
  return held_within(a.bias != nullptr ? sum + a.bias[column] : sum, a.clip);
}

// ---- float32: 64 x 64 of y a block, 4 x 4 a thread ---------------------------------------------
constexpr int kTile = 64;
constexpr int kStep32 = 16;  // columns of x and w in shared memory at a time

template <typename Out>
__global__ void __launch_bounds__(256) gemm_float32(GemmArguments a) {
  // Transposed, so that a thread reads its 4 rows and 4 columns with one 16-byte load each.
  __shared__ float xs[kStep32][kTile + 4];
  __shared__ float ws[kStep32][kTile + 4];
  const auto* x = static_cast<const float*>(a.x);
  const auto* w = static_cast<const float*>(a.w);
  const std::int64_t row0 = static_cast<std::int64_t>(blockIdx.y) * kTile;
  const std::int64_t column0 = static_cast<std::int64_t>(blockIdx.x) * kTile;
  const int tx = threadIdx.x % 16;
  const int ty = threadIdx.x / 16;
  float sum[4][4] = {};
  for (std::int64_t k0 = 0; k0 < a.k; k0 += kStep32) {
    for (int i = threadIdx.x; i < kTile * kStep32; i += 256) {
      const int k = i % kStep32;
      const int r = i / kStep32;
      const bool inside = k0 + k < a.k;
      xs[k][r] = inside && row0 + r < a.m ? x[(row0 + r) * a.k + k0 + k] : 0.0f;
      if (ATTN_FAULT(scratch_hidden_tail, !inside)) continue;
      ws[k][r] = inside && column0 + r < a.n ? w[(column0 + r) * a.k + k0 + k] : 0.0f;
    }
    __syncthreads();
#pragma unroll
    for (int k = 0; k < kStep32; ++k) {
      const float4 p = *reinterpret_cast<const float4*>(&xs[k][4 * ty]);
      const float4 q = *reinterpret_cast<const float4*>(&ws[k][4 * tx]);
      const float rows[4] = {p.x, p.y, p.z, p.w};
      const float columns[4] = {q.x, q.y, q.z, q.w};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) sum[i][j] = fmaf(rows[i], columns[j], sum[i][j]);
      }
    }
    __syncthreads();
  }
  auto* y = static_cast<Out*>(a.y);
  for (int i = 0; i < 4; ++i) {
    for (int j = 0; j < 4; ++j) {
      const std::int64_t row = row0 + 4 * ty + i;
      const std::int64_t column = column0 + 4 * tx + j;
      if (row < a.m && column < a.n) {
        y[row * a.y_stride + column] = from_float<Out>(finish(sum[i][j], a, column));
      }
    }
  }
}

// ---- 16-bit types: 64 x 64 of y a block, four warps of 32 x 32 ----------------------------------
constexpr int kStep16 = 32;
// 80-byte rows: the eight rows of an ldmatrix start in eight different groups of four banks.
constexpr int kStride16 = kStep16 + 8;

/// A tile of kTile rows and kStep16 columns to shared memory, zeros outside the matrix.
template <typename T>
__device__ __forceinline__ void load_tile(T (*tile)[kStride16], const T* matrix, std::int64_t rows,
                                          std::int64_t k, std::int64_t row0, std::int64_t k0,
                                          bool wide, bool is_weight) {
  if (wide) {  // every row starts at a multiple of 16 bytes
    for (int i = threadIdx.x; i < kTile * kStep16 / 8; i += 128) {
      const int r = i / (kStep16 / 8);
      const int c = i % (kStep16 / 8) * 8;
      if (ATTN_FAULT(scratch_hidden_tail, is_weight && k0 + c >= k)) continue;
      uint4 data = {0, 0, 0, 0};
      if (row0 + r < rows && k0 + c < k) {
        data = *reinterpret_cast<const uint4*>(matrix + (row0 + r) * k + k0 + c);
      }
      *reinterpret_cast<uint4*>(&tile[r][c]) = data;
    }
    return;
  }
  for (int i = threadIdx.x; i < kTile * kStep16; i += 128) {
    const int r = i / kStep16;
    const int c = i % kStep16;
    const bool inside = row0 + r < rows && k0 + c < k;
    if (ATTN_FAULT(scratch_hidden_tail, is_weight && k0 + c >= k)) continue;
    tile[r][c] = inside ? matrix[(row0 + r) * k + k0 + c] : from_float<T>(0.0f);
  }
}

template <typename T>
__global__ void __launch_bounds__(128) gemm_16bit(GemmArguments a, bool wide) {
  __shared__ __align__(16) T xs[kTile][kStride16];
  __shared__ __align__(16) T ws[kTile][kStride16];
  const std::int64_t row0 = static_cast<std::int64_t>(blockIdx.y) * kTile;
  const std::int64_t column0 = static_cast<std::int64_t>(blockIdx.x) * kTile;
  const int lane = threadIdx.x % 32;
  const int warp_row = threadIdx.x / 32 / 2 * 32;
  const int warp_column = threadIdx.x / 32 % 2 * 32;
  float sum[2][4][4] = {};
  for (std::int64_t k0 = 0; k0 < a.k; k0 += kStep16) {
    load_tile(xs, static_cast<const T*>(a.x), a.m, a.k, row0, k0, wide, false);
    load_tile(ws, static_cast<const T*>(a.w), a.n, a.k, column0, k0, wide, true);
    __syncthreads();
#pragma unroll
    for (int k = 0; k < kStep16; k += 16) {
      std::uint32_t rows[2][4];
      std::uint32_t columns[2][4];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        load_matrix_x4(rows[i],
                       shared_address(&xs[warp_row + 16 * i + lane % 16][k + 8 * (lane / 16)]));
        // w is [n, k]: its rows are columns of B, contiguous along k, so no transposition.
        load_matrix_x4(
            columns[i],
            shared_address(
                &ws[warp_column + 16 * i + lane % 8 + 8 * (lane / 16)][k + 8 * (lane / 8 % 2)]));
      }
#pragma unroll
      for (int i = 0; i < 2; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          mma_16x8x16<T>(sum[i][j], rows[i], columns[j / 2][2 * (j % 2)],
                         columns[j / 2][2 * (j % 2) + 1]);
        }
      }
    }
    __syncthreads();
  }
  auto* y = static_cast<T*>(a.y);
#pragma unroll
  for (int i = 0; i < 2; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const std::int64_t row = row0 + warp_row + 16 * i + lane / 4 + 8 * (e / 2);
        const std::int64_t column = column0 + warp_column + 8 * j + 2 * (lane % 4) + e % 2;
        if (row < a.m && column < a.n) {
          y[row * a.y_stride + column] = from_float<T>(finish(sum[i][j][e], a, column));
        }
      }
    }
  }
}

void launch_float32(const GemmArguments& a, dim3 grid, StreamHandle stream) {
  if (a.out_type == Type::kFloat32) {
    gemm_float32<float><<<grid, 256, 0, stream>>>(a);
  } else if (a.out_type == Type::kBFloat16) {
    gemm_float32<Bf16><<<grid, 256, 0, stream>>>(a);
  } else {
    gemm_float32<Half><<<grid, 256, 0, stream>>>(a);
  }
}

}  // namespace

void gemm(const GemmArguments& a, StreamHandle stream) {
  if (a.m == 0 || a.n == 0) return;
  // Columns of y along x: grid.y ends at 65535, and rows are many only where one launch would be
  // slow anyway; longer batches go in slices.
  constexpr std::int64_t kMostRows = 65535LL * kTile;
  const dim3 grid(static_cast<unsigned>((a.n + kTile - 1) / kTile),
                  static_cast<unsigned>(((a.m < kMostRows ? a.m : kMostRows) + kTile - 1) / kTile));
  for (std::int64_t first = 0; first < a.m; first += kMostRows) {
    GemmArguments part = a;
    part.y_stride = a.y_stride > 0 ? a.y_stride : a.n;
    part.x = static_cast<const char*>(a.x) + first * a.k * size_of(a.type);
    part.y = static_cast<char*>(a.y) + first * part.y_stride * size_of(a.out_type);
    part.m = a.m - first < kMostRows ? a.m - first : kMostRows;
    const bool wide = a.k % 8 == 0;
    if (a.type == Type::kFloat32) {
      launch_float32(part, grid, stream);
    } else if (a.type == Type::kBFloat16) {
      gemm_16bit<Bf16><<<grid, 128, 0, stream>>>(part, wide);
    } else {
      gemm_16bit<Half><<<grid, 128, 0, stream>>>(part, wide);
    }
    check_launch("gemm");
  }
}

}  // namespace attn::gpu
