// Activations to int8 codes for the streamed products: round(x 127 / amax) of a block, as
// quantise.h has it. Where 127 / amax is no number that float32 holds, the codes and their scale
// are 0; NaN in a block makes its scale NaN, as codes cannot say it.
#pragma once

#include "gpu/kernels/coded_stream_shape.h"
#include "gpu/kernels/element.cuh"
#include "gpu/kernels/mma_s8.cuh"

namespace attn::gpu {

__device__ __forceinline__ void load_four(const void* x, Type type, std::int64_t at,
                                          float (&v)[4]) {
  if (type == Type::kFloat32) {
    const float4 four = *reinterpret_cast<const float4*>(static_cast<const float*>(x) + at);
    v[0] = four.x;
    v[1] = four.y;
    v[2] = four.z;
    v[3] = four.w;
    return;
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) v[i] = load_element(x, type, at + i);
}

/// Two neighbouring elements, at a multiple of two.
__device__ __forceinline__ void load_two(const void* x, Type type, std::int64_t at, float& first,
                                         float& second) {
  if (type == Type::kFloat32) {
    const float2 two = *reinterpret_cast<const float2*>(static_cast<const float*>(x) + at);
    first = two.x;
    second = two.y;
    return;
  }
  const std::uint32_t two =
      *reinterpret_cast<const std::uint32_t*>(static_cast<const std::uint16_t*>(x) + at);
  if (type == Type::kBFloat16) {
    first = __uint_as_float(two << 16);
    second = __uint_as_float(two & 0xffff0000u);
    return;
  }
  const float2 wide = __half22float2(*reinterpret_cast<const __half2*>(&two));
  first = wide.x;
  second = wide.y;
}

/// Of the largest magnitude among the values that share it.
struct CodeScale {
  float inverse, scale;
  __device__ __forceinline__ explicit CodeScale(std::uint32_t largest_bits) {
    const float amax = __uint_as_float(largest_bits);
    inverse = amax > 0.0f ? __fdiv_rn(127.0f, amax) : 0.0f;
    scale = __fdiv_rn(amax, 127.0f);
    if (inverse > 3.4028235e38f) inverse = scale = 0.0f;
  }
};

/// One row's unit, by a warp: lane l has columns 4 (l % 2) to + 3 of the 16 number l / 2 and those
/// 8 further, which make up two words of its codes.
struct StreamValues {
  float v[2][4] = {};
  __device__ __forceinline__ void load(const CodedGemmArguments& a, int row, int unit, int lane) {
    const std::int64_t column =
        static_cast<std::int64_t>(unit) * kStreamUnit + lane / 2 * 16 + 4 * (lane % 2);
    if (column >= a.k) return;  // widths are multiples of 32
    const std::int64_t at = row * a.x_stride + column;
    load_four(a.x, a.x_type, at, v[0]);
    load_four(a.x, a.x_type, at + 8, v[1]);
  }
};

/// The largest bits of magnitudes of the lanes that share a scale. NaN has larger ones than any
/// number.
__device__ __forceinline__ std::uint32_t largest_bits(const StreamValues& x, int block) {
  std::uint32_t bits = 0;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const std::uint32_t own = __float_as_uint(x.v[i / 4][i % 4]) & 0x7fffffffu;
    bits = own > bits ? own : bits;
  }
  if (block == kStreamUnit) return largest_of_warp(bits);
#pragma unroll
  for (int with = 1; with < 4; with *= 2) {  // 32 columns: four lanes
    const std::uint32_t other = __shfl_xor_sync(0xffffffffu, bits, with);
    bits = other > bits ? other : bits;
  }
  return bits;
}

/// Writes the codes, scales and sums of a row's unit. All lanes of the warp come together.
__device__ __forceinline__ void store_stream_codes(const StreamImage& image, char* to, int row,
                                                   int unit, int lane, const StreamValues& x) {
  const CodeScale scale(largest_bits(x, image.block));
  std::uint32_t words[2] = {};
  int sum = 0;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    // Column 4 (l % 2) + i % 4, + 8 for the upper four: byte 2 (i % 2) + i / 4 of word i % 4 / 2.
    const int code = __float2int_rn(__fmul_rn(x.v[i / 4][i % 4], scale.inverse));
    sum += code;
    words[i % 4 / 2] |= (static_cast<std::uint32_t>(code) & 0xffu) << 8 * (2 * (i % 2) + i / 4);
  }
  char* const codes = to + row * image.stride;
#pragma unroll
  for (int w = 0; w < 2; ++w) {
    *reinterpret_cast<std::uint32_t*>(codes + stream_word(unit, lane / 2, 2 * (lane % 2) + w)) =
        words[w];
  }
  const int lanes = image.block == kStreamUnit ? 32 : 4;  // of a scale
  if (lane % lanes == 0) {
    const int block = unit * (32 / lanes) + lane / lanes;
    reinterpret_cast<float*>(to + image.scales)[block * image.room + row] = scale.scale;
  }
  if (image.group == 0) return;
  sum += __shfl_xor_sync(0xffffffffu, sum, 1);
  if (image.group == 32) sum += __shfl_xor_sync(0xffffffffu, sum, 2);
  const int lanes_of_sum = image.group == 32 ? 4 : 2;
  if (lane % lanes_of_sum != 0) return;
  char* const sums = to + image.sums + 32 * (unit * image.rows + row);
  const int group = lane / lanes_of_sum;
  sums[group] = static_cast<char>(sum & 127);
  sums[16 + group] = static_cast<char>(sum >> 7);
  if (image.group == 32) sums[8 + group] = sums[24 + group] = 0;
}

}  // namespace attn::gpu
