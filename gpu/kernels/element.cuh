// Element types on the device: exact widening to float and single roundings to nearest even.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include <cstdint>

#include "gpu/kernels/types.h"

namespace attn::gpu {

using Bf16 = __nv_bfloat16;
using Half = __half;
/// A storage byte of its own type, so that overloads can tell it from integers.
struct E4m3 {
  std::uint8_t code;
};

template <typename T>
struct TypeOf;
template <>
struct TypeOf<float> {
  static constexpr Type value = Type::kFloat32;
};
template <>
struct TypeOf<Bf16> {
  static constexpr Type value = Type::kBFloat16;
};
template <>
struct TypeOf<Half> {
  static constexpr Type value = Type::kFloat16;
};
template <>
struct TypeOf<E4m3> {
  static constexpr Type value = Type::kFloat8E4M3;
};

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(Bf16 x) { return __bfloat162float(x); }
__device__ __forceinline__ float to_float(Half x) { return __half2float(x); }
__device__ __forceinline__ float to_float(E4m3 x) {
  const __half_raw half = __nv_cvt_fp8_to_halfraw(x.code, __NV_E4M3);
  return __half2float(static_cast<__half>(half));
}

template <typename T>
__device__ __forceinline__ T from_float(float x);
template <>
__device__ __forceinline__ float from_float<float>(float x) {
  return x;
}
template <>
__device__ __forceinline__ Bf16 from_float<Bf16>(float x) {
  return __float2bfloat16_rn(x);
}
template <>
__device__ __forceinline__ Half from_float<Half>(float x) {
  return __float2half_rn(x);
}
template <>
__device__ __forceinline__ E4m3 from_float<E4m3>(float x) {  // saturates; NaN gives 0x7f
  return {static_cast<std::uint8_t>(__nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E4M3))};
}

/// Element `i` of an array whose type is known at run time only. The branch is uniform.
__device__ __forceinline__ float load_element(const void* data, Type type, std::int64_t i) {
  switch (type) {
    case Type::kFloat32:
      return static_cast<const float*>(data)[i];
    case Type::kBFloat16:
      return to_float(static_cast<const Bf16*>(data)[i]);
    case Type::kFloat16:
      return to_float(static_cast<const Half*>(data)[i]);
    default:
      return to_float(static_cast<const E4m3*>(data)[i]);
  }
}

__device__ __forceinline__ void store_element(void* data, Type type, std::int64_t i, float x) {
  switch (type) {
    case Type::kFloat32:
      static_cast<float*>(data)[i] = x;
      return;
    case Type::kBFloat16:
      static_cast<Bf16*>(data)[i] = from_float<Bf16>(x);
      return;
    case Type::kFloat16:
      static_cast<Half*>(data)[i] = from_float<Half>(x);
      return;
    default:
      static_cast<E4m3*>(data)[i] = from_float<E4m3>(x);
  }
}

}  // namespace attn::gpu
