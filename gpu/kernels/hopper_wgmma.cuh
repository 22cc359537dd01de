// wgmma of the Hopper prefill and projection kernels: 64 rows, float32 sums, 16-bit operands in the
// slabs of hopper_work.h. Scores (and projections) multiply two operands of shared memory; outputs
// take the probabilities from registers. Compute capability 9.0a only. How fences and waits belong
// together: wgmma_codes.cuh.
#pragma once

#include <cstdint>

#include "gpu/kernels/element.cuh"
#include "gpu/kernels/wgmma_codes.cuh"
#include "gpu/kernels/wgmma_operands.cuh"

namespace attn::gpu {

/// Operand whose k is contiguous (q, and k of the scores): rows of 128 bytes, eight rows 1024 bytes
/// apart. 16 deeper: address + 32; after 64 columns the next slab.
__device__ __forceinline__ std::uint64_t slab_descriptor(std::uint32_t address) {
  return wgmma_descriptor(address);
}

/// Operand whose columns are contiguous, one k a row (v of the outputs): eight rows 1024 bytes
/// apart, the next 64 columns `slab_bytes` further. 16 deeper: address + 2048.
__device__ __forceinline__ std::uint64_t slab_descriptor_transposed(std::uint32_t address,
                                                                    std::uint32_t slab_bytes) {
  return static_cast<std::uint64_t>((address & 0x3ffffu) >> 4) |
         static_cast<std::uint64_t>(slab_bytes >> 4) << 16 | std::uint64_t{1024 >> 4} << 32 |
         std::uint64_t{1} << 62;
}

/// No instruction: what is computed from the result stays where it is.
__device__ __forceinline__ std::uint64_t hoist_none(std::uint64_t x) {
  asm volatile("" : "+l"(x));
  return x;
}

__device__ __forceinline__ int hoist_none(int x) {
  asm volatile("" : "+r"(x));
  return x;
}

/// A register of its own: what wgmma reads may not be computed while another product is under way.
__device__ __forceinline__ std::uint32_t copy_register(std::uint32_t x) {
  std::uint32_t y;
  asm volatile("mov.b32 %0, %1;" : "=r"(y) : "r"(x));
  return y;
}

/// No instruction: uses of the registers do not move over it. After each wait that completes them,
/// and before the fence in front of the next product.
template <int kCount>
__device__ __forceinline__ void pin_registers(float (&r)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(r[i])::"memory");
}

// clang-format off
#define ATTN_WGMMA_SCORES_64(TYPES) \
  asm volatile( \
      "{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n" \
      "wgmma.mma_async.sync.aligned.m64n64k16.f32." TYPES " {" \
      ATTN_REGISTERS_32 "}, " \
      "%32, %33, p, 1, 1, 0, 0;\n}" \
      : ATTN_SUMS_32 : "l"(a), "l"(b), "r"(accumulate))
#define ATTN_WGMMA_SCORES_128(TYPES) \
  asm volatile( \
      "{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n" \
      "wgmma.mma_async.sync.aligned.m64n128k16.f32." TYPES " {" \
      ATTN_REGISTERS_64 "}, " \
      "%64, %65, p, 1, 1, 0, 0;\n}" \
      : ATTN_SUMS_64 : "l"(a), "l"(b), "r"(accumulate))
#define ATTN_WGMMA_SCORES_256(TYPES) \
  asm volatile( \
      "{\n.reg .pred p;\nsetp.ne.b32 p, %130, 0;\n" \
      "wgmma.mma_async.sync.aligned.m64n256k16.f32." TYPES " {" \
      ATTN_REGISTERS_128 "}, " \
      "%128, %129, p, 1, 1, 0, 0;\n}" \
      : ATTN_SUMS_128 : "l"(a), "l"(b), "r"(accumulate))
#define ATTN_WGMMA_VALUES_64(TYPES) \
  asm volatile( \
      "{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\n" \
      "wgmma.mma_async.sync.aligned.m64n64k16.f32." TYPES " {" \
      ATTN_REGISTERS_32 "}, " \
      "{%32, %33, %34, %35}, %36, p, 1, 1, 1;\n}" \
      : ATTN_SUMS_32 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b))
#define ATTN_WGMMA_VALUES_128(TYPES) \
  asm volatile( \
      "{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\n" \
      "wgmma.mma_async.sync.aligned.m64n128k16.f32." TYPES " {" \
      ATTN_REGISTERS_64 "}, " \
      "{%64, %65, %66, %67}, %68, p, 1, 1, 1;\n}" \
      : ATTN_SUMS_64 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b))
#define ATTN_WGMMA_VALUES_192(TYPES) \
  asm volatile( \
      "{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\n" \
      "wgmma.mma_async.sync.aligned.m64n192k16.f32." TYPES " {" \
      ATTN_REGISTERS_96 "}, " \
      "{%96, %97, %98, %99}, %100, p, 1, 1, 1;\n}" \
      : ATTN_SUMS_96 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b))
#define ATTN_WGMMA_VALUES_256(TYPES) \
  asm volatile( \
      "{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\n" \
      "wgmma.mma_async.sync.aligned.m64n256k16.f32." TYPES " {" \
      ATTN_REGISTERS_128 "}, " \
      "{%128, %129, %130, %131}, %132, p, 1, 1, 1;\n}" \
      : ATTN_SUMS_128 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b))
// clang-format on

/// d (+)= a b^T of one 16 deep step, d [64, kColumns]; `accumulate` 0: d begins at 0.
template <typename T, int kColumns>
__device__ __forceinline__ void wgmma_scores(float (&d)[kColumns / 2], std::uint64_t a,
                                             std::uint64_t b, int accumulate) {
  static_assert(kColumns == 64 || kColumns == 128 || kColumns == 256);
  constexpr bool kHalf = TypeOf<T>::value == Type::kFloat16;
  if constexpr (kColumns == 64) {
    if constexpr (kHalf) {
      ATTN_WGMMA_SCORES_64("f16.f16");
    } else {
      ATTN_WGMMA_SCORES_64("bf16.bf16");
    }
  } else if constexpr (kColumns == 128) {
    if constexpr (kHalf) {
      ATTN_WGMMA_SCORES_128("f16.f16");
    } else {
      ATTN_WGMMA_SCORES_128("bf16.bf16");
    }
  } else {
    if constexpr (kHalf) {
      ATTN_WGMMA_SCORES_256("f16.f16");
    } else {
      ATTN_WGMMA_SCORES_256("bf16.bf16");
    }
  }
}

/// d += a b of one 16 deep step, a in the fragments of mma.cuh, b transposed as it lies.
template <typename T, int kColumns>
__device__ __forceinline__ void wgmma_values(float (&d)[kColumns / 2], const std::uint32_t* a,
                                             std::uint64_t b) {
  static_assert(kColumns % 64 == 0 && kColumns <= 256);
  constexpr bool kHalf = TypeOf<T>::value == Type::kFloat16;
  if constexpr (kColumns == 64) {
    if constexpr (kHalf) {
      ATTN_WGMMA_VALUES_64("f16.f16");
    } else {
      ATTN_WGMMA_VALUES_64("bf16.bf16");
    }
  } else if constexpr (kColumns == 128) {
    if constexpr (kHalf) {
      ATTN_WGMMA_VALUES_128("f16.f16");
    } else {
      ATTN_WGMMA_VALUES_128("bf16.bf16");
    }
  } else if constexpr (kColumns == 192) {
    if constexpr (kHalf) {
      ATTN_WGMMA_VALUES_192("f16.f16");
    } else {
      ATTN_WGMMA_VALUES_192("bf16.bf16");
    }
  } else {
    if constexpr (kHalf) {
      ATTN_WGMMA_VALUES_256("f16.f16");
    } else {
      ATTN_WGMMA_VALUES_256("bf16.bf16");
    }
  }
}

#undef ATTN_WGMMA_SCORES_64
#undef ATTN_WGMMA_SCORES_128
#undef ATTN_WGMMA_SCORES_256
#undef ATTN_WGMMA_VALUES_64
#undef ATTN_WGMMA_VALUES_128
#undef ATTN_WGMMA_VALUES_192
#undef ATTN_WGMMA_VALUES_256

}  // namespace attn::gpu
