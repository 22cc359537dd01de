#pragma once

// Stands in for gpu/kernels/pair_fma.cuh.

#include "gpu/kernels/element.cuh"
#include "tests/gpu/emulator/bits.h"

namespace attn::gpu {

/// Exact in float64 where the sum has at most 53 bits, and rounded twice (float32, bfloat16) where it is not one of float32.
/// rounded to odd so that the second rounding is the only one.
inline std::uint32_t fma_bf16_pair(std::uint32_t a, std::uint32_t b, std::uint32_t c) {
  std::uint32_t y = 0;
  for (int i = 0; i < 2; ++i) {
    const auto value = [i](std::uint32_t pair) {
      return static_cast<double>(
          from_bits(static_cast<std::uint16_t>(pair >> 16 * i), Type::kBFloat16));
    };
    const double sum = value(a) * value(b) + value(c);
    const std::uint16_t bits = to_bits(static_cast<float>(sum), Type::kBFloat16);
    y |= static_cast<std::uint32_t>(bits) << 16 * i;
  }
  return y;
}

}  // namespace attn::gpu
