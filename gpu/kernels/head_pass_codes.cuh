// What the pass over the heads stores in a cache of e4m3 codes.
#pragma once

#include "gpu/faults/fault_switch.h"
#include "gpu/kernels/element.cuh"

namespace attn::gpu {

/// The scale of a head whose largest |x| is `amax`: float32(amax / 448), 1 for zeros.
__device__ __forceinline__ float scale_of_head(float amax) {
  if (ATTN_FAULT(cache_scale_for_240)) amax *= 448.0f / 240.0f;
  return amax == 0.0f ? 1.0f : __fdiv_rn(amax, 448.0f);
}

/// e4m3(x / scale), the quotient in float64: a code is rounded once. A scale that underflowed to 0
/// makes every value 0.
__device__ __forceinline__ E4m3 cache_code(float x, float scale) {
  const double quotient = scale == 0.0f ? 0.0 : static_cast<double>(x) / static_cast<double>(scale);
  auto code =
      static_cast<std::uint8_t>(__nv_cvt_double_to_fp8(quotient, __NV_SATFINITE, __NV_E4M3));
  if (ATTN_FAULT(fp8_truncated, fabsf(to_float(E4m3{code})) > fabs(quotient))) --code;
  if (ATTN_FAULT(fp8_overflow_is_nan, fabs(quotient) > 448.0)) code = 0x7f;
  if (ATTN_FAULT(fp8_subnormals_flushed, (code & 0x78) == 0 && (code & 0x07) != 0)) code = 0;
  return {code};
}

/// The rare way of quick_cache_code(), once in the code of a kernel.
[[gnu::noinline]] __device__ inline E4m3 code_by_float64(float x, float scale) {
  return cache_code(x, scale);
}

/// cache_code(), most often without float64. A quotient rounded to float32 lies on the same side of
/// every middle between two codes as the exact one, or on the middle; so it says the code unless it
/// is on one and inexact. Codes below the normal ones have other middles, and of tiny scales the
/// remainder that tells may be lost: float64 says.
__device__ __forceinline__ E4m3 quick_cache_code(float x, float scale) {
  const float quotient = __fdiv_rn(x, scale);
  const bool exact = __fmaf_rn(quotient, scale, -x) == 0.0f;
  const bool on_middle = (__float_as_uint(quotient) & 0xfffffu) == 0x80000u;
  const bool certain = scale >= 0x1p-60f && (exact || (fabsf(quotient) >= 0x1p-6f && !on_middle));
  if (!certain) return code_by_float64(x, scale);
  return from_float<E4m3>(quotient);
}

}  // namespace attn::gpu
