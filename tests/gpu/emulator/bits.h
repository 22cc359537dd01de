#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "gpu/kernels/types.h"

namespace attn::gpu {

/// The bits of a 16-bit type, and back.
inline std::uint16_t to_bits(float x, Type type) {
  return type == Type::kFloat16 ? __half_as_ushort(__float2half_rn(x))
                                : __bfloat16_as_ushort(__float2bfloat16_rn(x));
}
inline float from_bits(std::uint16_t bits, Type type) {
  return type == Type::kFloat16 ? __half2float(__ushort_as_half(bits))
                                : __bfloat162float(__ushort_as_bfloat16(bits));
}

}  // namespace attn::gpu
