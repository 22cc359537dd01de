// wgmma with A in registers for the coded products whose x may have few rows: also 16 columns of B,
// and always adding. Fences and waits as in wgmma_codes.cuh.
#pragma once

#include "gpu/kernels/wgmma_codes.cuh"
#include "gpu/kernels/wgmma_operands.cuh"

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

/// The upper half of wgmma_descriptor(), which is the same for any address.
constexpr std::uint32_t kWgmmaUpper = (1024 >> 4) | std::uint32_t{1} << 30;
/// And its lower half.
__device__ __forceinline__ std::uint32_t wgmma_lower(std::uint32_t address) {
  return (address & 0x3ffffu) >> 4 | std::uint32_t{1} << 16;
}

// clang-format off
#define ATTN_WGMMA_NARROW_16(TYPES) \
  asm volatile( \
      "{\n.reg .b64 b;\nmov.b64 b, {%12, %13};\n" \
      "wgmma.mma_async.sync.aligned.m64n16k16.f32." TYPES " " \
      "{" ATTN_REGISTERS_8 "}, " \
      "{%8, %9, %10, %11}, b, 1, 1, 1, 0;\n}" \
      : ATTN_SUMS_8(0) \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(lower), "n"(kWgmmaUpper))
#define ATTN_WGMMA_NARROW_32(TYPES) \
  asm volatile( \
      "{\n.reg .b64 b;\nmov.b64 b, {%20, %21};\n" \
      "wgmma.mma_async.sync.aligned.m64n32k16.f32." TYPES " " \
      "{" ATTN_REGISTERS_16 "}, " \
      "{%16, %17, %18, %19}, b, 1, 1, 1, 0;\n}" \
      : ATTN_SUMS_16 \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(lower), "n"(kWgmmaUpper))
#define ATTN_WGMMA_NARROW_64(TYPES) \
  asm volatile( \
      "{\n.reg .b64 b;\nmov.b64 b, {%36, %37};\n" \
      "wgmma.mma_async.sync.aligned.m64n64k16.f32." TYPES " " \
      "{" ATTN_REGISTERS_32 "}, " \
      "{%32, %33, %34, %35}, b, 1, 1, 1, 0;\n}" \
      : ATTN_SUMS_32 \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(lower), "n"(kWgmmaUpper))
#define ATTN_WGMMA_NARROW_128(TYPES) \
  asm volatile( \
      "{\n.reg .b64 b;\nmov.b64 b, {%68, %69};\n" \
      "wgmma.mma_async.sync.aligned.m64n128k16.f32." TYPES " " \
      "{" ATTN_REGISTERS_64 "}, " \
      "{%64, %65, %66, %67}, b, 1, 1, 1, 0;\n}" \
      : ATTN_SUMS_64 \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(lower), "n"(kWgmmaUpper))
// clang-format on

/// d += A B of one 16 deep step; `lower`: wgmma_lower() of B's address, plus 2 for each 16 deep.
/// Half a descriptor is half as much to bring to the registers that it is read from.
template <typename T, int kColumns>
__device__ __forceinline__ void wgmma_narrow(float (&d)[kColumns / 2], const std::uint32_t (&a)[4],
                                             std::uint32_t lower) {
  static_assert(kColumns == 16 || kColumns == 32 || kColumns == 64 || kColumns == 128);
  constexpr bool kHalf = TypeOf<T>::value == Type::kFloat16;
  if constexpr (kColumns == 16) {
    if constexpr (kHalf) {
      ATTN_WGMMA_NARROW_16("f16.f16");
    } else {
      ATTN_WGMMA_NARROW_16("bf16.bf16");
    }
  } else if constexpr (kColumns == 32) {
    if constexpr (kHalf) {
      ATTN_WGMMA_NARROW_32("f16.f16");
    } else {
      ATTN_WGMMA_NARROW_32("bf16.bf16");
    }
  } else if constexpr (kColumns == 64) {
    if constexpr (kHalf) {
      ATTN_WGMMA_NARROW_64("f16.f16");
    } else {
      ATTN_WGMMA_NARROW_64("bf16.bf16");
    }
  } else if constexpr (kColumns == 128) {
    if constexpr (kHalf) {
      ATTN_WGMMA_NARROW_128("f16.f16");
    } else {
      ATTN_WGMMA_NARROW_128("bf16.bf16");
    }
  }
}

#undef ATTN_WGMMA_NARROW_16
#undef ATTN_WGMMA_NARROW_32
#undef ATTN_WGMMA_NARROW_64
#undef ATTN_WGMMA_NARROW_128

}  // namespace attn::gpu
