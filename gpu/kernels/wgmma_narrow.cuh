// wgmma with A in registers for the coded products whose x may have few rows: also 16 columns of B.
// Fences and waits as in wgmma_codes.cuh.
#pragma once

#include "gpu/kernels/wgmma_codes.cuh"

namespace attn::gpu {

/// Nothing may move a value between these and the wgmma before or after them.
template <int kCount>
__device__ __forceinline__ void pin(float (&values)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(values[i])::"memory");
}
__device__ __forceinline__ void pin(std::uint32_t (&values)[4]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) asm volatile("" : "+r"(values[i])::"memory");
}

// clang-format off
#define ATTN_WGMMA_16(TYPES) \
  asm volatile( \
      "{\n.reg .pred p;\nsetp.ne.b32 p, %13, 0;\n" \
      "wgmma.mma_async.sync.aligned.m64n16k16.f32." TYPES " " \
      "{%0, %1, %2, %3, %4, %5, %6, %7}, {%8, %9, %10, %11}, %12, p, 1, 1, 0;\n}" \
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]) \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate))
// clang-format on

/// d (+)= A B of one 16 deep step; `accumulate` 0: d begins at 0.
template <typename T, int kColumns>
__device__ __forceinline__ void wgmma_narrow(float (&d)[kColumns / 2], const std::uint32_t (&a)[4],
                                             std::uint64_t b, int accumulate) {
  if constexpr (kColumns == 16) {
    if constexpr (TypeOf<T>::value == Type::kFloat16) {
      ATTN_WGMMA_16("f16.f16");
    } else {
      ATTN_WGMMA_16("bf16.bf16");
    }
  } else {
    wgmma<T, kColumns>(d, a, b, accumulate);
  }
}

#undef ATTN_WGMMA_16

}  // namespace attn::gpu
