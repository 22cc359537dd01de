#include <cmath>

#include "gpu/device/check.h"
#include "gpu/faults/fault_switch.h"
#include "gpu/kernels/element.cuh"
#include "gpu/kernels/quantise.h"

namespace attn::gpu {
namespace {

constexpr int kWarps = 4;

__device__ double round_e4m3(double x) {
  __nv_fp8_storage_t code = __nv_cvt_double_to_fp8(x, __NV_SATFINITE, __NV_E4M3);
  if (ATTN_FAULT(fp8_truncated, fabsf(to_float(E4m3{static_cast<std::uint8_t>(code)})) > fabs(x))) {
    --code;
  }
  if (ATTN_FAULT(fp8_overflow_is_nan, fabs(x) > 448.0)) code = 0x7f;
  if (ATTN_FAULT(fp8_subnormals_flushed, (code & 0x78) == 0 && (code & 0x07) != 0)) code = 0;
  return static_cast<double>(to_float(E4m3{static_cast<std::uint8_t>(code)}));
}

/// 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives; ties to the even code, saturating.
__device__ double round_e2m1(double x) {
  const double a = fabs(x);
  double step = 0.5;
  if (a >= 2.0) step = 1.0;
  if (a >= 4.0) step = 2.0;
  // Multiples of the step with an even mantissa are even multiples, so rint breaks ties rightly.
  const double y = fmin(rint(a / step) * step, 6.0);
  return copysign(y, x);
}

struct Coded {
  double code = 0.0;
  double scale = 0.0;
};

/// x in steps of `scale`; code 0 where the scale is 0.
template <typename Round>
__device__ Coded in_steps(double x, double scale, const Round& round) {
  return {scale == 0.0 ? 0.0 : round(x / scale), scale};
}

/// The smallest power of two whose multiple `top` holds amax.
__device__ double mx_scale(float amax, double top) {
  int of_amax = 0;
  int of_top = 0;
  const double fraction = frexp(static_cast<double>(amax), &of_amax);
  const double top_fraction = frexp(top, &of_top);
  int exponent = of_amax - of_top + (fraction > top_fraction ? 1 : 0);
  if (ATTN_FAULT(mx_scale_rounded_down, fraction > top_fraction)) --exponent;
  exponent = exponent < -127 ? -127 : exponent > 127 ? 127 : exponent;
  return ldexp(1.0, exponent);
}

__device__ Coded coded(const QuantiseArguments& a, float value, float amax) {
  const auto x = static_cast<double>(value);
  const auto e4m3 = [](double v) { return round_e4m3(v); };
  const auto e2m1 = [](double v) { return round_e2m1(v); };
  const auto scale = static_cast<double>(a.scale);
  const bool all_zero = amax == 0.0f;
  switch (a.format) {
    case ActivationFormat::kNone:
      break;
    case ActivationFormat::kFp8Static:
      return in_steps(x, scale, e4m3);
    case ActivationFormat::kFp8:
      if (ATTN_FAULT(fp8_scale_not_capped, amax > 1200.0f)) {
        return in_steps(x, static_cast<double>(__fdiv_rn(amax, 448.0f)), e4m3);
      }
      return in_steps(x, static_cast<double>(__fdiv_rn(fminf(amax, 1200.0f), 448.0f)), e4m3);
    case ActivationFormat::kInt8: {
      if (all_zero) break;
      const auto largest = static_cast<double>(amax);
      if (ATTN_FAULT(int8_truncated)) return {trunc(x * (127.0 / largest)), largest / 127.0};
      return {rint(x * (127.0 / largest)), largest / 127.0};
    }
    case ActivationFormat::kNvfp4:
      if (ATTN_FAULT(nvfp4_scale_not_rounded)) {
        return in_steps(x, static_cast<double>(amax) / 6.0, e2m1);
      }
      return in_steps(x, round_e4m3(static_cast<double>(amax) / 6.0 / scale) * scale, e2m1);
    case ActivationFormat::kMxfp4:
      if (all_zero) break;
      return in_steps(x, mx_scale(amax, 6.0), e2m1);
    case ActivationFormat::kMxfp8:
      if (all_zero) break;
      return in_steps(x, mx_scale(amax, 448.0), e4m3);
  }
  return {x, 1.0};
}

/// One warp a block of a row.
__global__ void __launch_bounds__(32 * kWarps) quantise_kernel(QuantiseArguments a) {
  const std::int64_t blocks = (a.columns + a.block - 1) / a.block;
  const std::int64_t job = static_cast<std::int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (job >= a.rows * blocks) return;
  const std::int64_t first = job % blocks * a.block;
  const std::int64_t count = a.columns - first < a.block ? a.columns - first : a.block;
  const std::int64_t at = job / blocks * a.width + a.first_column + first;
  float amax = 0.0f;
  for (std::int64_t i = threadIdx.x % 32; i < count; i += 32) {
    std::int64_t element = at + i;
    if (ATTN_FAULT(fp8_scale_of_last_row,
                   a.format == ActivationFormat::kFp8 && job / blocks + 1 < a.rows)) {
      element += (a.rows - 1 - job / blocks) * a.width;
    }
    amax = fmaxf(amax, fabsf(load_element(a.x, a.type, element)));
  }
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    amax = fmaxf(amax, __shfl_xor_sync(0xffffffffu, amax, step));
  }
  for (std::int64_t i = threadIdx.x % 32; i < count; i += 32) {
    const Coded c = coded(a, load_element(a.x, a.type, at + i), amax);
    if (a.y != nullptr) {
      a.y[at + i] = static_cast<float>(c.code * c.scale);
      continue;
    }
    static_cast<Half*>(a.codes)[at + i] = from_float<Half>(static_cast<float>(c.code));
    if (i % 16 == 0) a.scales[(at + i) / 16] = static_cast<float>(c.scale);
  }
}

}  // namespace

void quantise(const QuantiseArguments& a, StreamHandle stream) {
  if (a.rows == 0 || a.columns == 0) return;
  const std::int64_t jobs = a.rows * ((a.columns + a.block - 1) / a.block);
  const auto blocks = static_cast<unsigned>((jobs + kWarps - 1) / kWarps);
  quantise_kernel<<<blocks, 32 * kWarps, 0, stream>>>(a);
  check_launch("quantise");
}

}  // namespace attn::gpu
