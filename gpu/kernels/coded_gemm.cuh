// Products with weights that stay codes. W is the A operand, its 16 rows a tile, so that decoding
// happens in the registers that the tensor cores read; x is B, eight of its rows a tile. Within 16
// columns, lane l has columns 4 (l % 4) .. + 3 for both operands: the order of a sum's terms is
// free.
#pragma once

#include "gpu/device/check.h"
#include "gpu/kernels/coded_gemm.h"
#include "gpu/kernels/mma.cuh"

namespace attn::gpu {

template <typename T>
struct Pairs;  // two 16-bit floats in a register
template <>
struct Pairs<Half> {
  static constexpr std::uint32_t kMagic = 0x64006400;  // 1024 + the low bits of each half
  static constexpr float kMagicValue = 1024.0f;
  static constexpr std::uint32_t kOne = 0x3c003c00;
  static __device__ __forceinline__ std::uint32_t subtract(std::uint32_t a, float b) {
    const __half2 y = __hsub2(*reinterpret_cast<const __half2*>(&a), __float2half2_rn(b));
    return *reinterpret_cast<const std::uint32_t*>(&y);
  }
  /// e2m1 codes in the low bits of each half. The bits are those of a float16 with the exponent
  /// 14 too small, subnormal ones too.
  static __device__ __forceinline__ std::uint32_t from_e2m1(std::uint32_t v) {
    const std::uint32_t bits = (v & 0x00080008u) << 12 | (v & 0x00070007u) << 9;
    const __half2 y = __hmul2(*reinterpret_cast<const __half2*>(&bits), __float2half2_rn(0x1p14f));
    return *reinterpret_cast<const std::uint32_t*>(&y);
  }
  static __device__ __forceinline__ std::uint32_t from_half(std::uint32_t v) { return v; }
};
template <>
struct Pairs<Bf16> {
  static constexpr std::uint32_t kMagic = 0x43004300;  // 128 + the low bits: up to 7 of them
  static constexpr float kMagicValue = 128.0f;
  static constexpr std::uint32_t kOne = 0x3f803f80;
  static __device__ __forceinline__ std::uint32_t subtract(std::uint32_t a, float b) {
    const __nv_bfloat162 y =
        __hsub2(*reinterpret_cast<const __nv_bfloat162*>(&a), __float2bfloat162_rn(b));
    return *reinterpret_cast<const std::uint32_t*>(&y);
  }
  static __device__ __forceinline__ std::uint32_t from_e2m1(std::uint32_t v) {
    return from_half(Pairs<Half>::from_e2m1(v));
  }
  static __device__ __forceinline__ std::uint32_t from_half(std::uint32_t v) {
    const float2 f = __half22float2(*reinterpret_cast<const __half2*>(&v));
    return pack2<Bf16>(f.x, f.y);
  }
};

/// One lane's codes of a chunk: 2 rows of 16 columns.
template <CodeKind kKind>
struct ChunkCodes {
  static constexpr bool kBytes = kKind == CodeKind::kI8 || kKind == CodeKind::kE4m3;
  uint4 low;
  uint4 more;  // kBytes: steps 2 and 3
  uint2 high;

  __device__ __forceinline__ void load(const CodedMatrix& w, std::int64_t index) {
    const auto* codes = static_cast<const uint4*>(w.codes);
    if (kBytes) {
      low = __ldg(codes + 2 * index);
      more = __ldg(codes + 2 * index + 1);
    } else {
      low = __ldg(codes + index);
    }
    if (kKind == CodeKind::kU5) high.x = __ldg(static_cast<const std::uint32_t*>(w.high) + index);
    if (kKind == CodeKind::kU6) high = __ldg(static_cast<const uint2*>(w.high) + index);
  }

  /// The A fragment of step `s` (a constant).
  template <typename T>
  __device__ __forceinline__ void decode(int s, float offset, std::uint32_t (&a)[4]) const {
    if (kBytes) {
      const uint4& half = s < 2 ? low : more;
      const std::uint32_t words[2] = {s % 2 == 0 ? half.x : half.z, s % 2 == 0 ? half.y : half.w};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const std::uint32_t pair = words[i / 2] >> 16 * (i % 2) & 0xffffu;
        std::uint32_t value = 0;
        if (kKind == CodeKind::kI8) {
          const std::uint32_t biased = __byte_perm(pair, 0x64646464u, 0x4140);
          value = Pairs<Half>::subtract(biased, 1024.0f + 128.0f);
        } else {
          const __half2_raw raw =
              __nv_cvt_fp8x2_to_halfraw2(static_cast<__nv_fp8x2_storage_t>(pair), __NV_E4M3);
          value = static_cast<std::uint32_t>(raw.x) | static_cast<std::uint32_t>(raw.y) << 16;
        }
        a[i] = Pairs<T>::from_half(value);
      }
      return;
    }
    const std::uint32_t word = s == 0 ? low.x : s == 1 ? low.y : s == 2 ? low.z : low.w;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      std::uint32_t v = word >> 4 * i & 0x000f000fu;
      if (kKind == CodeKind::kE2m1) {
        a[i] = Pairs<T>::from_e2m1(v);
        continue;
      }
      if (kKind == CodeKind::kU5) v |= (high.x >> (4 * s + i) & 0x00010001u) << 4;
      if (kKind == CodeKind::kU6) {
        v |= ((s < 2 ? high.x : high.y) >> (8 * (s % 2) + 2 * i) & 0x00030003u) << 4;
      }
      a[i] = Pairs<T>::subtract(v | Pairs<T>::kMagic, Pairs<T>::kMagicValue + offset);
    }
  }
};

__device__ __forceinline__ float inner_scale(const void* plane, Type type, std::int64_t i) {
  if (type == Type::kFloat16) return to_float(static_cast<const Half*>(plane)[i]);
  if (type == Type::kBFloat16) return to_float(static_cast<const Bf16*>(plane)[i]);
  return static_cast<const float*>(plane)[i];
}

/// Scale and min of a row at column k.
struct RowScale {
  float scale = 0.0f;
  float min = 0.0f;
};
__device__ __forceinline__ RowScale row_scale(const CodedMatrix& w, std::int64_t row,
                                              std::int64_t k) {
  const std::int64_t inner = (k >> w.group_shift) * w.rows + row;
  const std::int64_t outer = k / kCodedOuter * w.rows + row;
  RowScale r;
  r.scale =
      inner_scale(w.inner, w.inner_type, inner) * (w.outer != nullptr ? w.outer[outer] : w.global);
  if (w.inner_min != nullptr) {
    r.min = inner_scale(w.inner_min, w.inner_type, inner) * w.outer_min[outer];
  }
  return r;
}

/// One chunk of one tile of W times kTiles tiles of x. `x_pair(tile, step)` gives a lane's four
/// columns of its row of x, `x_scale(tile, i, step)` the scale of the tile's rows 2 (l % 4) + i.
template <CodeKind kKind, typename T, int kTiles, typename XPair, typename XScale>
__device__ __forceinline__ void multiply_chunk(const CodedMatrix& w, const ChunkCodes<kKind>& codes,
                                               std::int64_t row, std::int64_t k, int scale_every,
                                               const XPair& x_pair, const XScale& x_scale,
                                               float (&sum)[kTiles][4]) {
  constexpr bool kMayHaveMin = kKind == CodeKind::kU4 || kKind == CodeKind::kU5;
  const std::uint32_t ones[4] = {Pairs<T>::kOne, Pairs<T>::kOne, Pairs<T>::kOne, Pairs<T>::kOne};
  const bool has_min = kMayHaveMin && w.inner_min != nullptr;
  const auto offset = static_cast<float>(w.offset);
  float part[kTiles][4] = {};
  float x_sum[kTiles][4] = {};
#pragma unroll
  for (int s = 0; s < 4; ++s) {
    std::uint32_t a[4];
    codes.template decode<T>(s, offset, a);
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
      const uint2 b = x_pair(t, s);
      mma_16x8x16<T>(part[t], a, b.x, b.y);
      if (kMayHaveMin && has_min) mma_16x8x16<T>(x_sum[t], ones, b.x, b.y);
    }
    if ((s + 1) % scale_every != 0) continue;
    // The end of columns that share their scales.
    const RowScale first = row_scale(w, row, k + kCodedStep * s);
    const RowScale second = row_scale(w, row + 8, k + kCodedStep * s);
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const RowScale& r = e < 2 ? first : second;
        float y = part[t][e] * r.scale;
        if (kMayHaveMin && has_min) y = fmaf(-r.min, x_sum[t][e], y);
        sum[t][e] = fmaf(y, x_scale(t, e % 2, s), sum[t][e]);
        part[t][e] = 0.0f;
        x_sum[t][e] = 0.0f;
      }
    }
  }
}

__device__ __forceinline__ void store_result(const CodedGemmArguments& a, std::int64_t m,
                                             std::int64_t n, float y) {
  if (a.bias != nullptr) y += a.bias[n];
  if (a.clip > 0.0f) y = y > a.clip ? a.clip : y < -a.clip ? -a.clip : y;
  store_element(a.y, a.out_type, m * a.y_stride + n, y);
}

constexpr int kFewWarps = 8;

/// Few rows: one tile of W a block, its warps share out the chunks. grid: x tiles, y rows of x.
template <CodeKind kKind, typename T, int kTiles>
__global__ void __launch_bounds__(32 * kFewWarps)
    coded_few_rows(const __grid_constant__ CodedGemmArguments a, const int scale_every) {
  constexpr int kAhead = ChunkCodes<kKind>::kBytes ? 2 : 4;
  __shared__ float parts[kFewWarps][kTiles][4][32];
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const int chunks = static_cast<int>(a.k / kCodedChunk);
  const std::int64_t first_row = static_cast<std::int64_t>(blockIdx.y) * 8 * kTiles;
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * kCodedTile + lane / 4;
  float sum[kTiles][4] = {};
  for (int first = warp; first < chunks; first += kAhead * kFewWarps) {
    ChunkCodes<kKind> codes[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int chunk = first + i * kFewWarps;
      if (chunk >= chunks) break;
      codes[i].load(a.w, (static_cast<std::int64_t>(blockIdx.x) * chunks + chunk) * 32 + lane);
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int chunk = first + i * kFewWarps;
      if (chunk >= chunks) break;
      const std::int64_t k = static_cast<std::int64_t>(chunk) * kCodedChunk;
      const auto x_pair = [&](int t, int s) {
        const std::int64_t m = first_row + 8 * t + lane / 4;
        if (m >= a.m) return uint2{0, 0};
        return *reinterpret_cast<const uint2*>(static_cast<const T*>(a.x) + m * a.k + k +
                                               kCodedStep * s + 4 * (lane % 4));
      };
      const auto x_scale = [&](int t, int i2, int s) {
        const std::int64_t m = first_row + 8 * t + 2 * (lane % 4) + i2;
        if (a.x_scale == nullptr || m >= a.m) return 1.0f;
        return a.x_scale[m * (a.k / kCodedStep) + k / kCodedStep + s];
      };
      multiply_chunk<kKind, T, kTiles>(a.w, codes[i], row, k, scale_every, x_pair, x_scale, sum);
    }
  }
#pragma unroll
  for (int t = 0; t < kTiles; ++t) {
#pragma unroll
    for (int e = 0; e < 4; ++e) parts[warp][t][e][lane] = sum[t][e];
  }
  __syncthreads();
  for (int i = threadIdx.x; i < kTiles * 128; i += 32 * kFewWarps) {
    const int t = i / 128;
    const int e = i / 32 % 4;
    const int l = i % 32;
    float y = 0.0f;
#pragma unroll
    for (int w = 0; w < kFewWarps; ++w) y += parts[w][t][e][l];
    const std::int64_t m = first_row + 8 * t + 2 * (l % 4) + e % 2;
    const std::int64_t n = static_cast<std::int64_t>(blockIdx.x) * kCodedTile + l / 4 + 8 * (e / 2);
    if (m < a.m && n < a.n) store_result(a, m, n, y);
  }
}

constexpr int kManyWarps = 4;
constexpr int kManyRows = 64;  // of x
constexpr int kManyTiles = 2;  // of W, a warp
// 160-byte rows: the 8-byte reads of four rows fall into different banks.
constexpr int kManyStride = kCodedChunk + 16;

/// Many rows: 128 rows of W and 64 of x a block; x by cp.async in two stages.
template <CodeKind kKind, typename T>
__global__ void __launch_bounds__(32 * kManyWarps)
    coded_many_rows(const __grid_constant__ CodedGemmArguments a, const int scale_every) {
  __shared__ __align__(16) T xs[2][kManyRows][kManyStride];
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const int chunks = static_cast<int>(a.k / kCodedChunk);
  const std::int64_t first_row = static_cast<std::int64_t>(blockIdx.y) * kManyRows;
  const std::int64_t tiles = a.w.rows / kCodedTile;
  const std::int64_t first_tile =
      (static_cast<std::int64_t>(blockIdx.x) * kManyWarps + warp) * kManyTiles;
  float sum[kManyTiles][8][4] = {};
  const auto load_x = [&](int chunk) {
    for (int i = threadIdx.x; i < kManyRows * 8; i += 32 * kManyWarps) {
      const int r = i / 8;
      const int c = i % 8;
      const bool valid = chunk < chunks && first_row + r < a.m;
      const T* const from = static_cast<const T*>(a.x) +
                            (valid ? (first_row + r) * a.k + chunk * kCodedChunk + 8 * c : 0);
      copy_async_16(shared_address(&xs[chunk % 2][r][8 * c]), from, valid);
    }
    copy_async_commit();
  };
  const auto load_codes = [&](int chunk, ChunkCodes<kKind>(&codes)[kManyTiles]) {
#pragma unroll
    for (int i = 0; i < kManyTiles; ++i) {
      if (chunk < chunks && first_tile + i < tiles) {
        codes[i].load(a.w, ((first_tile + i) * chunks + chunk) * 32 + lane);
      }
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
    const std::int64_t k = static_cast<std::int64_t>(chunk) * kCodedChunk;
    const auto x_pair = [&](int t, int s) {
      return *reinterpret_cast<const uint2*>(
          &xs[chunk % 2][8 * t + lane / 4][kCodedStep * s + 4 * (lane % 4)]);
    };
    const auto x_scale = [&](int t, int i, int s) {
      const std::int64_t m = first_row + 8 * t + 2 * (lane % 4) + i;
      if (a.x_scale == nullptr || m >= a.m) return 1.0f;
      return a.x_scale[m * (a.k / kCodedStep) + k / kCodedStep + s];
    };
#pragma unroll
    for (int i = 0; i < kManyTiles; ++i) {
      if (first_tile + i >= tiles) break;
      multiply_chunk<kKind, T, 8>(a.w, codes[i], (first_tile + i) * kCodedTile + lane / 4, k,
                                  scale_every, x_pair, x_scale, sum[i]);
    }
  }
#pragma unroll
  for (int i = 0; i < kManyTiles; ++i) {
#pragma unroll
    for (int t = 0; t < 8; ++t) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const std::int64_t m = first_row + 8 * t + 2 * (lane % 4) + e % 2;
        const std::int64_t n = (first_tile + i) * kCodedTile + lane / 4 + 8 * (e / 2);
        if (m < a.m && n < a.n) store_result(a, m, n, sum[i][t][e]);
      }
    }
  }
}

constexpr std::int64_t kMostFewRows = 128;

template <CodeKind kKind, typename T>
void launch_coded(const CodedGemmArguments& a, int scale_every, cudaStream_t stream) {
  const auto tiles = static_cast<unsigned>(a.w.rows / kCodedTile);
  if (a.m <= 8) {
    coded_few_rows<kKind, T, 1><<<dim3(tiles), 32 * kFewWarps, 0, stream>>>(a, scale_every);
  } else if (a.m <= kMostFewRows) {
    const auto blocks = static_cast<unsigned>((a.m + 15) / 16);
    coded_few_rows<kKind, T, 2><<<dim3(tiles, blocks), 32 * kFewWarps, 0, stream>>>(a, scale_every);
  } else {
    constexpr unsigned kTilesOfBlock = kManyWarps * kManyTiles;
    const dim3 grid((tiles + kTilesOfBlock - 1) / kTilesOfBlock,
                    static_cast<unsigned>((a.m + kManyRows - 1) / kManyRows));
    coded_many_rows<kKind, T><<<grid, 32 * kManyWarps, 0, stream>>>(a, scale_every);
  }
  check_launch("coded_gemm");
}

template <typename T>
void launch_coded_kind(const CodedGemmArguments& a, int scale_every, cudaStream_t stream) {
  switch (a.w.kind) {
    case CodeKind::kU4:
      return launch_coded<CodeKind::kU4, T>(a, scale_every, stream);
    case CodeKind::kU5:
      return launch_coded<CodeKind::kU5, T>(a, scale_every, stream);
    case CodeKind::kU6:
      return launch_coded<CodeKind::kU6, T>(a, scale_every, stream);
    case CodeKind::kE2m1:
      return launch_coded<CodeKind::kE2m1, T>(a, scale_every, stream);
    case CodeKind::kI8:
      return launch_coded<CodeKind::kI8, T>(a, scale_every, stream);
    case CodeKind::kE4m3:
      return launch_coded<CodeKind::kE4m3, T>(a, scale_every, stream);
  }
}

/// Instantiated in a file each, so that they compile side by side.
void launch_coded_float16(const CodedGemmArguments& a, int scale_every, cudaStream_t stream);
void launch_coded_bfloat16(const CodedGemmArguments& a, int scale_every, cudaStream_t stream);

}  // namespace attn::gpu
