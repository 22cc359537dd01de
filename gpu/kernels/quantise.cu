#include <cmath>

#include "gpu/device/check.h"
#include "gpu/faults/fault_switch.h"
#include "gpu/kernels/element.cuh"
#include "gpu/kernels/quantise.h"

namespace attn::gpu {
namespace {

__device__ __forceinline__ float round_e4m3(float x) {
  std::uint8_t code = from_float<E4m3>(x).code;
  if (ATTN_FAULT(fp8_truncated, fabsf(to_float(E4m3{code})) > fabsf(x))) --code;
  if (ATTN_FAULT(fp8_overflow_is_nan, fabsf(x) > 448.0f)) code = 0x7f;
  if (ATTN_FAULT(fp8_subnormals_flushed, (code & 0x78) == 0 && (code & 0x07) != 0)) code = 0;
  return to_float(E4m3{code});
}

/// 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives; ties to the even code, saturating.
__device__ __forceinline__ float round_e2m1(float x) {
  const float a = fabsf(x);
  const float step = a >= 4.0f ? 2.0f : a >= 2.0f ? 1.0f : 0.5f;
  // Multiples of the step with an even mantissa are even multiples, so rint breaks ties rightly;
  // the steps are powers of two.
  return copysignf(fminf(rintf(a / step) * step, 6.0f), x);
}

/// The smallest power of two whose multiple `top` holds amax.
__device__ __forceinline__ float mx_scale(float amax, float top) {
  int of_amax = 0;
  int of_top = 0;
  const float fraction = frexpf(amax, &of_amax);
  const float top_fraction = frexpf(top, &of_top);
  int exponent = of_amax - of_top + (fraction > top_fraction ? 1 : 0);
  if (ATTN_FAULT(mx_scale_rounded_down, fraction > top_fraction)) --exponent;
  exponent = exponent < -127 ? -127 : exponent > 127 ? 127 : exponent;
  return ldexpf(1.0f, exponent);
}

/// What a block's codes are multiples of.
__device__ __forceinline__ float block_scale(const QuantiseArguments& a, float amax) {
  switch (a.format) {
    case ActivationFormat::kNone:
      return 1.0f;
    case ActivationFormat::kFp8Static:
      return a.scale;
    case ActivationFormat::kFp8:
      if (ATTN_FAULT(fp8_scale_not_capped, amax > 1200.0f)) return __fdiv_rn(amax, 448.0f);
      return __fdiv_rn(fminf(amax, 1200.0f), 448.0f);
    case ActivationFormat::kInt8:
      return __fdiv_rn(amax, 127.0f);
    case ActivationFormat::kNvfp4:
      if (ATTN_FAULT(nvfp4_scale_not_rounded)) return __fdiv_rn(amax, 6.0f);
      return __fmul_rn(round_e4m3(__fdiv_rn(__fdiv_rn(amax, 6.0f), a.scale)), a.scale);
    case ActivationFormat::kMxfp4:
      return amax == 0.0f ? 1.0f : mx_scale(amax, 6.0f);
    case ActivationFormat::kMxfp8:
      return amax == 0.0f ? 1.0f : mx_scale(amax, 448.0f);
  }
  return 1.0f;
}

/// `inverse`: 127 / amax, for int8 alone. Code 0 where the scale is 0.
__device__ __forceinline__ float code_of(ActivationFormat format, float x, float scale,
                                         float inverse) {
  if (format == ActivationFormat::kNone) return x;
  if (format == ActivationFormat::kInt8) {
    if (ATTN_FAULT(int8_truncated)) return truncf(__fmul_rn(x, inverse));
    return rintf(__fmul_rn(x, inverse));
  }
  if (scale == 0.0f) return 0.0f;
  const float quotient = __fdiv_rn(x, scale);
  const bool four_bits = format == ActivationFormat::kNvfp4 || format == ActivationFormat::kMxfp4;
  return four_bits ? round_e2m1(quotient) : round_e4m3(quotient);
}
__device__ __forceinline__ float inverse_of(ActivationFormat format, float amax) {
  return format == ActivationFormat::kInt8 && amax > 0.0f ? __fdiv_rn(127.0f, amax) : 0.0f;
}

template <int kCount>
__device__ __forceinline__ void load_row(const QuantiseArguments& a, std::int64_t at,
                                         float (&x)[kCount]) {
  if (a.type == Type::kFloat32) {
#pragma unroll
    for (int i = 0; i < kCount; i += 4) {
      const float4 v = *reinterpret_cast<const float4*>(static_cast<const float*>(a.x) + at + i);
      x[i] = v.x;
      x[i + 1] = v.y;
      x[i + 2] = v.z;
      x[i + 3] = v.w;
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < kCount; i += 4) {
    const uint2 v =
        *reinterpret_cast<const uint2*>(static_cast<const std::uint16_t*>(a.x) + at + i);
    const std::uint32_t words[2] = {v.x, v.y};
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      if (a.type == Type::kBFloat16) {
        x[i + 2 * j] = __uint_as_float(words[j] << 16);
        x[i + 2 * j + 1] = __uint_as_float(words[j] & 0xffff0000u);
      } else {
        const float2 pair = __half22float2(*reinterpret_cast<const __half2*>(&words[j]));
        x[i + 2 * j] = pair.x;
        x[i + 2 * j + 1] = pair.y;
      }
    }
  }
}

/// Codes, and for each 16 columns the scale and the sum. All lanes of the warp come here together;
/// `valid`: this one has columns.
template <int kCount>
__device__ __forceinline__ void store_codes(const QuantiseArguments& a, std::int64_t at,
                                            const float (&code)[kCount], float scale, bool valid) {
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < kCount; ++i) sum += code[i];
  if (a.sums != nullptr) {
#pragma unroll
    for (int step = 8 / kCount; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
  }
  if (!valid) return;
#pragma unroll
  for (int i = 0; i < kCount; i += 4) {
    const __half2 low = __floats2half2_rn(code[i], code[i + 1]);
    const __half2 high = __floats2half2_rn(code[i + 2], code[i + 3]);
    *reinterpret_cast<uint2*>(static_cast<Half*>(a.codes) + at + i) = {
        *reinterpret_cast<const std::uint32_t*>(&low),
        *reinterpret_cast<const std::uint32_t*>(&high)};
  }
  if (at % 16 != 0) return;
  a.scales[at / 16] = scale;
  if (a.sums != nullptr) a.sums[at / 16] = sum * scale;
}

constexpr int kWarps = 4;

/// Blocks of 16 to 256 columns, kCount of which a lane has.
template <int kCount>
__global__ void __launch_bounds__(32 * kWarps) quantise_blocks(QuantiseArguments a) {
  const std::int64_t lanes_of_row = a.columns / kCount;
  const std::int64_t job = static_cast<std::int64_t>(blockIdx.x) * (32 * kWarps) + threadIdx.x;
  const std::int64_t row = job / lanes_of_row;
  const bool valid = row < a.rows;
  const std::int64_t column = a.first_column + job % lanes_of_row * kCount;
  float x[kCount] = {};
  if (valid) load_row(a, row * a.width + column, x);
  float amax = 0.0f;
#pragma unroll
  for (int i = 0; i < kCount; ++i) amax = fmaxf(amax, fabsf(x[i]));
  if (valid &&
      ATTN_FAULT(fp8_scale_of_last_row, a.format == ActivationFormat::kFp8 && row + 1 < a.rows)) {
    float last[kCount];
    load_row(a, (a.rows - 1) * a.width + column, last);
    amax = 0.0f;
#pragma unroll
    for (int i = 0; i < kCount; ++i) amax = fmaxf(amax, fabsf(last[i]));
  }
  // Lanes of a block are neighbours in one warp.
  for (int step = static_cast<int>(a.block) / kCount / 2; step > 0; step /= 2) {
    amax = fmaxf(amax, __shfl_xor_sync(0xffffffffu, amax, step));
  }
  const float scale = block_scale(a, amax);
  const float inverse = inverse_of(a.format, amax);
  float code[kCount];
#pragma unroll
  for (int i = 0; i < kCount; ++i) code[i] = code_of(a.format, x[i], scale, inverse);
  store_codes(a, row * a.code_width + column, code, scale, valid);
}

constexpr int kRowThreads = 256;

/// One block a row, whose columns share one scale.
__global__ void __launch_bounds__(kRowThreads) quantise_rows(QuantiseArguments a) {
  __shared__ float largest[kRowThreads / 32];
  const std::int64_t row = blockIdx.x;
  const std::int64_t from = row * a.width + a.first_column;
  const std::int64_t to = row * a.code_width + a.first_column;
  float amax = 0.0f;
  if (a.format != ActivationFormat::kFp8Static) {
    std::int64_t scaled = from;
    if (ATTN_FAULT(fp8_scale_of_last_row, a.format == ActivationFormat::kFp8 && row + 1 < a.rows)) {
      scaled += (a.rows - 1 - row) * a.width;
    }
    for (std::int64_t c = 4 * threadIdx.x; c < a.columns; c += 4 * kRowThreads) {
      float x[4];
      load_row(a, scaled + c, x);
#pragma unroll
      for (int i = 0; i < 4; ++i) amax = fmaxf(amax, fabsf(x[i]));
    }
#pragma unroll
    for (int step = 16; step > 0; step /= 2) {
      amax = fmaxf(amax, __shfl_xor_sync(0xffffffffu, amax, step));
    }
    if (threadIdx.x % 32 == 0) largest[threadIdx.x / 32] = amax;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kRowThreads / 32; ++i) amax = fmaxf(amax, largest[i]);
  }
  const float scale = block_scale(a, amax);
  const float inverse = inverse_of(a.format, amax);
  for (std::int64_t first = 0; first < a.columns; first += 4 * kRowThreads) {
    const std::int64_t c = first + 4 * threadIdx.x;
    const bool valid = c < a.columns;
    float x[4] = {};
    if (valid) load_row(a, from + c, x);
    float code[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) code[i] = code_of(a.format, x[i], scale, inverse);
    store_codes(a, to + c, code, scale, valid);
  }
}

/// Any block of any row: one warp each. Where sums are wanted, blocks are multiples of 16.
__global__ void __launch_bounds__(32 * kWarps) quantise_any(QuantiseArguments a) {
  const std::int64_t blocks = (a.columns + a.block - 1) / a.block;
  const std::int64_t job = static_cast<std::int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (job >= a.rows * blocks) return;
  const std::int64_t first = job % blocks * a.block;
  const std::int64_t count = a.columns - first < a.block ? a.columns - first : a.block;
  const std::int64_t row = job / blocks;
  const std::int64_t from = row * a.width + a.first_column + first;
  const std::int64_t to = row * a.code_width + a.first_column + first;
  float amax = 0.0f;
  std::int64_t scaled = from;
  if (ATTN_FAULT(fp8_scale_of_last_row, a.format == ActivationFormat::kFp8 && row + 1 < a.rows)) {
    scaled += (a.rows - 1 - row) * a.width;
  }
  for (std::int64_t i = threadIdx.x % 32; i < count; i += 32) {
    amax = fmaxf(amax, fabsf(load_element(a.x, a.type, scaled + i)));
  }
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    amax = fmaxf(amax, __shfl_xor_sync(0xffffffffu, amax, step));
  }
  const float scale = block_scale(a, amax);
  const float inverse = inverse_of(a.format, amax);
  for (std::int64_t i0 = 0; i0 < count; i0 += 32) {
    const std::int64_t i = i0 + threadIdx.x % 32;
    const bool valid = i < count;
    const float x = valid ? load_element(a.x, a.type, from + i) : 0.0f;
    const float code = code_of(a.format, x, scale, inverse);
    float sum = valid ? code : 0.0f;
    if (a.sums != nullptr) {
#pragma unroll
      for (int step = 8; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
    }
    if (!valid) continue;
    if (a.y != nullptr) {
      a.y[from + i] = __fmul_rn(code, scale);
      continue;
    }
    static_cast<Half*>(a.codes)[to + i] = from_float<Half>(code);
    if ((to + i) % 16 != 0) continue;
    a.scales[(to + i) / 16] = scale;
    if (a.sums != nullptr) a.sums[(to + i) / 16] = sum * scale;
  }
}

/// Codes of 0 behind the last column, with its scale: they may be summed with it.
__global__ void pad_codes(QuantiseArguments a) {
  const std::int64_t row = blockIdx.x;
  const float scale = a.scales[(row * a.code_width + a.width - 1) / 16];
  for (std::int64_t c = a.width + threadIdx.x; c < a.code_width; c += blockDim.x) {
    const std::int64_t at = row * a.code_width + c;
    static_cast<Half*>(a.codes)[at] = from_float<Half>(0.0f);
    if (at % 16 != 0) continue;
    a.scales[at / 16] = scale;
    if (a.sums != nullptr) a.sums[at / 16] = 0.0f;
  }
}

constexpr int kGatherThreads = 128;

template <typename Word>
__global__ void __launch_bounds__(kGatherThreads)
    gather_kernel(const Word* x, const std::uint32_t* order, Word* y, std::int64_t columns) {
  constexpr int kWide = 16 / sizeof(Word);
  const std::int64_t row = blockIdx.x;
  for (std::int64_t c = kWide * threadIdx.x; c < columns; c += kWide * kGatherThreads) {
    __align__(16) Word part[kWide];
#pragma unroll
    for (int i = 0; i < kWide; ++i) part[i] = x[row * columns + order[c + i]];
    *reinterpret_cast<uint4*>(y + row * columns + c) = *reinterpret_cast<const uint4*>(part);
  }
}

}  // namespace

void quantise(const QuantiseArguments& a, StreamHandle stream) {
  if (a.rows == 0 || a.columns == 0) return;
  const bool wide =
      a.y == nullptr && a.width % 4 == 0 && a.first_column % 16 == 0 && a.columns % 16 == 0;
  const bool power =
      a.block >= 16 && a.block <= 256 && (a.block & (a.block - 1)) == 0 && a.columns % a.block == 0;
  if (wide && power) {
    const int count = a.block == 256 ? 8 : 4;
    const std::int64_t lanes = a.rows * (a.columns / count);
    const auto blocks = static_cast<unsigned>((lanes + 32 * kWarps - 1) / (32 * kWarps));
    if (count == 8) {
      quantise_blocks<8><<<blocks, 32 * kWarps, 0, stream>>>(a);
    } else {
      quantise_blocks<4><<<blocks, 32 * kWarps, 0, stream>>>(a);
    }
  } else if (wide && a.block >= a.columns) {
    quantise_rows<<<static_cast<unsigned>(a.rows), kRowThreads, 0, stream>>>(a);
  } else {
    const std::int64_t jobs = a.rows * ((a.columns + a.block - 1) / a.block);
    const auto blocks = static_cast<unsigned>((jobs + kWarps - 1) / kWarps);
    quantise_any<<<blocks, 32 * kWarps, 0, stream>>>(a);
  }
  check_launch("quantise");
  if (a.y != nullptr || a.code_width == a.width || a.first_column + a.columns != a.width) return;
  pad_codes<<<static_cast<unsigned>(a.rows), 32, 0, stream>>>(a);
  check_launch("pad_codes");
}

void gather_columns(const void* x, int element_bytes, const std::uint32_t* order, void* y,
                    std::int64_t rows, std::int64_t columns, StreamHandle stream) {
  if (rows == 0) return;
  const auto blocks = static_cast<unsigned>(rows);
  if (element_bytes == 4) {
    gather_kernel<<<blocks, kGatherThreads, 0, stream>>>(
        static_cast<const std::uint32_t*>(x), order, static_cast<std::uint32_t*>(y), columns);
  } else {
    gather_kernel<<<blocks, kGatherThreads, 0, stream>>>(
        static_cast<const std::uint16_t*>(x), order, static_cast<std::uint16_t*>(y), columns);
  }
  check_launch("gather_columns");
}

}  // namespace attn::gpu
