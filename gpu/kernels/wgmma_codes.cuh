// wgmma with A in registers and B in shared memory: 64 rows of A, kColumns of B, 16 deep, float32
// sums. A warp of the group holds 16 rows of A and of D, in the fragments of mma.cuh; of D, 8
// columns after 8 columns. Compute capability 9.0a only.
#pragma once

#include <cstdint>

#include "gpu/kernels/element.cuh"
#include "gpu/kernels/wgmma_operands.cuh"

namespace attn::gpu {

/// Accesses to accumulators and A fragments before this come before the products after it.
__device__ __forceinline__ void wgmma_fence() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int kPending>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}
/// What this thread wrote to shared memory, its landed cp.async too, before what wgmma reads.
__device__ __forceinline__ void fence_shared_for_wgmma() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/// B as rows of 128 bytes, a row for each of its columns, whose 16-byte pieces p lie at p ^ (row %
/// 8). `address`: of a tile that starts at a multiple of 1024 bytes, plus 32 for each 16 deep.
__device__ __forceinline__ std::uint64_t wgmma_descriptor(std::uint32_t address) {
  return static_cast<std::uint64_t>((address & 0x3ffffu) >> 4) | std::uint64_t{1} << 16 |
         std::uint64_t{1024 >> 4} << 32 | std::uint64_t{1} << 62;
}

// clang-format off
#define ATTN_WGMMA_32(TYPES) \
  asm volatile( \
      "{\n.reg .pred p;\nsetp.ne.b32 p, %21, 0;\n" \
      "wgmma.mma_async.sync.aligned.m64n32k16.f32." TYPES " " \
      "{" ATTN_REGISTERS_16 "}, " \
      "{%16, %17, %18, %19}, %20, p, 1, 1, 0;\n}" \
      : ATTN_SUMS_16 \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate))
#define ATTN_WGMMA_64(TYPES) \
  asm volatile( \
      "{\n.reg .pred p;\nsetp.ne.b32 p, %37, 0;\n" \
      "wgmma.mma_async.sync.aligned.m64n64k16.f32." TYPES " " \
      "{" ATTN_REGISTERS_32 "}, " \
      "{%32, %33, %34, %35}, %36, p, 1, 1, 0;\n}" \
      : ATTN_SUMS_32 \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate))
#define ATTN_WGMMA_128(TYPES) \
  asm volatile( \
      "{\n.reg .pred p;\nsetp.ne.b32 p, %69, 0;\n" \
      "wgmma.mma_async.sync.aligned.m64n128k16.f32." TYPES " " \
      "{" ATTN_REGISTERS_64 "}, " \
      "{%64, %65, %66, %67}, %68, p, 1, 1, 0;\n}" \
      : ATTN_SUMS_64 \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate))
#define ATTN_WGMMA_256(TYPES) \
  asm volatile( \
      "{\n.reg .pred p;\nsetp.ne.b32 p, %133, 0;\n" \
      "wgmma.mma_async.sync.aligned.m64n256k16.f32." TYPES " " \
      "{" ATTN_REGISTERS_128 "}, " \
      "{%128, %129, %130, %131}, %132, p, 1, 1, 0;\n}" \
      : ATTN_SUMS_128 \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate))

// clang-format on

/// d (+)= A B of one 16 deep step; `accumulate` 0: d begins at 0.
template <typename T, int kColumns>
__device__ __forceinline__ void wgmma(float (&d)[kColumns / 2], const std::uint32_t (&a)[4],
                                      std::uint64_t b, int accumulate) {
  constexpr bool kHalf = TypeOf<T>::value == Type::kFloat16;
  if constexpr (kColumns == 32) {
    if constexpr (kHalf) {
      ATTN_WGMMA_32("f16.f16");
    } else {
      ATTN_WGMMA_32("bf16.bf16");
    }
  } else if constexpr (kColumns == 64) {
    if constexpr (kHalf) {
      ATTN_WGMMA_64("f16.f16");
    } else {
      ATTN_WGMMA_64("bf16.bf16");
    }
  } else if constexpr (kColumns == 128) {
    if constexpr (kHalf) {
      ATTN_WGMMA_128("f16.f16");
    } else {
      ATTN_WGMMA_128("bf16.bf16");
    }
  } else if constexpr (kColumns == 256) {
    if constexpr (kHalf) {
      ATTN_WGMMA_256("f16.f16");
    } else {
      ATTN_WGMMA_256("bf16.bf16");
    }
  }
}

#undef ATTN_WGMMA_32
#undef ATTN_WGMMA_64
#undef ATTN_WGMMA_128
#undef ATTN_WGMMA_256

}  // namespace attn::gpu
