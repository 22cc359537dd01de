#pragma once

#include <cstdint>

namespace attn::gpu {

/// a b + c of two bfloat16 each, rounded once; numbers below the normal ones count.
__device__ __forceinline__ std::uint32_t fma_bf16_pair(std::uint32_t a, std::uint32_t b,
                                                       std::uint32_t c) {
  std::uint32_t y;
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(y) : "r"(a), "r"(b), "r"(c));
  return y;
}

}  // namespace attn::gpu
