// Up to 4 rows of x in float32 with gguf's weights, by the same stream: weights are made in
// registers by the roundings that define them, and multiplied on the CUDA cores.
#pragma once

#include "gpu/kernels/coded_stream_bytes.cuh"

namespace attn::gpu {

/// Units [first, end) of x, by a warp, as a lane reads it: of each 16 columns the four of lane t
/// beside each other, in the order of stream_word's bytes. Zeros behind the last column.
__device__ __forceinline__ void bring_floats(const CodedGemmArguments& a, int units, char* to,
                                             int first, int end, int lane) {
  for (int row = 0; row < static_cast<int>(a.m); ++row) {
    for (int unit = first; unit < end; ++unit) {
      StreamValues x;
      x.load(a, row, unit, lane);
      float4* const own = reinterpret_cast<float4*>(to) + 64 * (row * units + unit) + 2 * lane;
      own[0] = {x.v[0][0], x.v[1][0], x.v[0][1], x.v[1][1]};
      own[1] = {x.v[0][2], x.v[1][2], x.v[0][3], x.v[1][3]};
    }
  }
}

/// Sums of one tile that a warp makes: lane l those of rows l / 4 and + 8 over its own columns.
template <CodeKind kKind, bool kSuper, int kRows>
struct FloatStreamSums {
  using Stage = StreamStage<kKind, kSuper>;
  /// What codes as bytes are more than they mean.
  static constexpr float kOffset = kKind == CodeKind::kI8   ? 128.0f
                                   : kKind == CodeKind::kU6 ? 32.0f
                                   : kSuper                 ? 0.0f
                                                            : 8.0f;
  const CodedGemmArguments& a;
  const float4* const x;  ///< of this lane
  const int row_of_x;     ///< float4s from row to row
  const int lane;
  float sum[kRows][2] = {};

  __device__ FloatStreamSums(const CodedGemmArguments& arguments, const char* values, int units,
                             int own_lane)
      : a(arguments),
        x(reinterpret_cast<const float4*>(values) + own_lane % 4),
        row_of_x(64 * units),
        lane(own_lane) {}

  /// Codes of a step's 16 columns as bytes of rows lane / 4 and + 8.
  __device__ __forceinline__ void bytes_of(const char* data, int chunk, int step,
                                           std::uint32_t& first, std::uint32_t& second) const {
    if constexpr (Stage::kBytes) {
      const auto* const words = reinterpret_cast<const uint2*>(data + chunk * Stage::kCodeBytes +
                                                               byte_piece(lane, step / 2));
      const uint2 word = words[step % 2];
      first = __byte_perm(word.x, word.y, 0x5140);
      second = __byte_perm(word.x, word.y, 0x7362);
    } else {
      const std::uint32_t word = reinterpret_cast<const std::uint32_t*>(
          data + chunk * Stage::kCodeBytes + 16 * lane)[step];
      first = word & 0x0f0f0f0fu;
      second = word >> 4 & 0x0f0f0f0fu;
      std::uint32_t more[2] = {};
      const char* const high = data + Stage::kHigh + chunk * Stage::kHighBytes;
      if constexpr (kKind == CodeKind::kU5) {
        fifth_bits(reinterpret_cast<const std::uint32_t*>(high)[lane] >> 4 * step, more[0],
                   more[1]);
      } else if constexpr (kKind == CodeKind::kU6) {
        sixth_bits(
            reinterpret_cast<const std::uint32_t*>(high)[2 * lane + step / 2] >> 8 * (step % 2),
            more[0], more[1]);
      }
      first |= more[0];
      second |= more[1];
    }
  }

  /// What multiplies a group's codes, and what is subtracted then, of both rows.
  __device__ __forceinline__ void scales_of(const char* data, int group, float2& scale,
                                            float2& min) const {
    min = {0.0f, 0.0f};
    if constexpr (!kSuper) {
      scale = __half22float2(
          reinterpret_cast<const __half2*>(data + Stage::kInner)[8 * group + lane / 4]);
    } else {
      const int at = 8 * group + lane / 4;
      const uchar2 inner = reinterpret_cast<const uchar2*>(data + Stage::kInner)[at];
      const float2 outer = reinterpret_cast<const float2*>(data + Stage::kOuter)[lane / 4];
      scale = {__fmul_rn(static_cast<float>(inner.x) - a.w.inner_bias, outer.x),
               __fmul_rn(static_cast<float>(inner.y) - a.w.inner_bias, outer.y)};
      if constexpr (Stage::kHasMin) {
        const uchar2 inner_min = reinterpret_cast<const uchar2*>(data + Stage::kInnerMin)[at];
        const float2 outer_min = reinterpret_cast<const float2*>(data + Stage::kOuterMin)[lane / 4];
        min = {__fmul_rn(static_cast<float>(inner_min.x), outer_min.x),
               __fmul_rn(static_cast<float>(inner_min.y), outer_min.y)};
      }
    }
  }

  /// Byte `i` of codes as a weight. Its float is 2^23 and the code, so that one fused multiply-add
  /// rounds scale times code, and nothing else, where codes mean themselves.
  __device__ __forceinline__ float weight_of(std::uint32_t codes, int i, float scale,
                                             float min) const {
    const float biased =
        __uint_as_float(__byte_perm(codes, 0x4b000000u, 0x7650u | static_cast<std::uint32_t>(i)));
    const float product = kOffset == 0.0f ? __fmaf_rn(scale, biased, -8388608.0f * scale)
                                          : __fmul_rn(scale, biased - (8388608.0f + kOffset));
    return Stage::kHasMin ? __fadd_rn(product, -min) : product;
  }

  __device__ __forceinline__ void add(const char* data, int stage) {
    const int first_chunk = stage * Stage::kChunks;
#pragma unroll
    for (int c = 0; c < Stage::kChunks; ++c) {
      if (!kSuper && first_chunk + c >= static_cast<int>(a.w.chunks)) break;
      float2 scale = {0.0f, 0.0f};
      float2 min = {0.0f, 0.0f};
#pragma unroll
      for (int step = 0; step < 4; ++step) {
        constexpr int kSteps = Stage::kGroup / kCodedStep;
        if (step % kSteps == 0) scales_of(data, (4 * c + step) / kSteps, scale, min);
        std::uint32_t codes[2];
        bytes_of(data, c, step, codes[0], codes[1]);
        float w[2][4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          w[0][i] = weight_of(codes[0], i, scale.x, min.x);
          w[1][i] = weight_of(codes[1], i, scale.y, min.y);
        }
#pragma unroll
        for (int m = 0; m < kRows; ++m) {
          const int row = m < a.m ? m : 0;  // what is too many is not stored
          const float4 v = x[row * row_of_x + 16 * (first_chunk + c) + 4 * step];
#pragma unroll
          for (int r = 0; r < 2; ++r) {
            sum[m][r] = __fmaf_rn(w[r][0], v.x, sum[m][r]);
            sum[m][r] = __fmaf_rn(w[r][1], v.y, sum[m][r]);
            sum[m][r] = __fmaf_rn(w[r][2], v.z, sum[m][r]);
            sum[m][r] = __fmaf_rn(w[r][3], v.w, sum[m][r]);
          }
        }
      }
    }
  }

  /// The four lanes' sums are added to [row of x][16 rows of W], and start again. All lanes come
  /// together.
  __device__ __forceinline__ void flush(float* to) {
#pragma unroll
    for (int m = 0; m < kRows; ++m) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        float y = sum[m][r];
        y += __shfl_xor_sync(0xffffffffu, y, 1);
        y += __shfl_xor_sync(0xffffffffu, y, 2);
        if (m < a.m && lane % 4 == 0) to[kCodedTile * m + lane / 4 + 8 * r] += y;
        sum[m][r] = 0.0f;
      }
    }
  }
};

template <CodeKind kKind, bool kSuper, int kRows>
__global__ void __launch_bounds__(kStreamThreads, kRows == 1 ? 2 : 1)
    coded_stream_floats(const __grid_constant__ CodedGemmArguments a, int units,
                        int tiles_of_block) {
  const int rows = static_cast<int>(a.m);
  using Stage = StreamStage<kKind, kSuper>;
  const auto unit_of = [](int stage) { return stage * Stage::kChunks * kCodedChunk / kStreamUnit; };
  stream_product<Stage, false>(
      a, rows, rows * units * kStreamUnit * 4, tiles_of_block,
      [&](char* to, int first, int end) {
        bring_floats(a, units, to, unit_of(first), unit_of(end - 1) + 1,
                     static_cast<int>(threadIdx.x % 32));
      },
      [&](const char* x) {
        return FloatStreamSums<kKind, kSuper, kRows>(a, x, units,
                                                     static_cast<int>(threadIdx.x % 32));
      });
}

}  // namespace attn::gpu
