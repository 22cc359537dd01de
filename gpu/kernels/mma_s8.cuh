// Tensor-core products of bytes, summed exactly in 32 bits: mma.sync of 16 rows of A and 8 columns
// of B. A lane's bytes of A: rows lane / 4 and + 8; of B: column lane / 4; of the sums: rows lane /
// 4 and + 8 of columns 2 (lane % 4) and + 1.
#pragma once

#include <cstdint>

namespace attn::gpu {

/// c += a b over 32 columns. kUnsigned: the bytes of A, those of B have signs.
template <bool kUnsigned>
__device__ __forceinline__ void mma_bytes_32(int (&c)[4], const std::uint32_t (&a)[4],
                                             std::uint32_t b0, std::uint32_t b1) {
  if constexpr (kUnsigned) {
    asm volatile(
        "mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  } else {
    asm volatile(
        "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
}

/// The same over 16 columns.
template <bool kUnsigned>
__device__ __forceinline__ void mma_bytes_16(int (&c)[4], std::uint32_t a0, std::uint32_t a1,
                                             std::uint32_t b) {
  if constexpr (kUnsigned) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.s32.u8.s8.s32 {%0, %1, %2, %3}, {%4, %5}, {%6}, "
        "{%0, %1, %2, %3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(a0), "r"(a1), "r"(b));
  } else {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5}, {%6}, "
        "{%0, %1, %2, %3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(a0), "r"(a1), "r"(b));
  }
}

/// The largest of a warp's values.
__device__ __forceinline__ std::uint32_t largest_of_warp(std::uint32_t x) {
  return __reduce_max_sync(0xffffffffu, x);
}

}  // namespace attn::gpu
