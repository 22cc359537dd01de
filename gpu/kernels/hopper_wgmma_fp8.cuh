// wgmma of e4m3 codes: 64 rows, 32 deep, float32 sums (of which the chip keeps some 14 bits a
// step), operands in rows of 128 bytes as wgmma_descriptor() has them: 32 deeper is 32 bytes.
// Compute capability 9.0a only; how fences and waits belong together: wgmma_codes.cuh.
#pragma once

#include <cstdint>

#include "gpu/kernels/hopper_wgmma.cuh"
#include "gpu/kernels/wgmma_operands.cuh"

namespace attn::gpu {

/// Four floats as e4m3 codes, the first in the lowest byte: to nearest even, saturating, NaN stays.
__device__ __forceinline__ std::uint32_t pack_codes(float x0, float x1, float x2, float x3) {
  std::uint32_t codes;
  asm("{\n.reg .b16 low, high;\n"
      "cvt.rn.satfinite.e4m3x2.f32 low, %2, %1;\n"
      "cvt.rn.satfinite.e4m3x2.f32 high, %4, %3;\n"
      "mov.b32 %0, {low, high};\n}"
      : "=r"(codes)
      : "f"(x0), "f"(x1), "f"(x2), "f"(x3));
  return codes;
}

/// d (+)= a b^T of one 32 deep step, both in shared memory, d [64, kColumns]; `accumulate` 0: d
/// begins at 0.
template <int kColumns>
__device__ __forceinline__ void wgmma_scores_fp8(float (&d)[kColumns / 2], std::uint64_t a,
                                                 std::uint64_t b, int accumulate) {
  static_assert(kColumns == 128);
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k32.f32.e4m3.e4m3 {" ATTN_REGISTERS_64
      "}, %64, %65, p, 1, 1;\n}"
      : ATTN_SUMS_64
      : "l"(a), "l"(b), "r"(accumulate));
}

/// d += a b^T of one 32 deep step. Of a, a thread has rows t / 4 and t / 4 + 8 of its warp's 16 (t
/// its lane): of each, bytes 4 (t % 4) and the three after it, then the same 16 further.
template <int kColumns>
__device__ __forceinline__ void wgmma_values_fp8(float (&d)[kColumns / 2], const std::uint32_t* a,
                                                 std::uint64_t b) {
  static_assert(kColumns == 64 || kColumns == 128);
  if constexpr (kColumns == 64) {
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n64k32.f32.e4m3.e4m3 {" ATTN_REGISTERS_32
        "}, {%32, %33, %34, %35}, %36, p, 1, 1;\n}"
        : ATTN_SUMS_32
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
  } else {
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n128k32.f32.e4m3.e4m3 {" ATTN_REGISTERS_64
        "}, {%64, %65, %66, %67}, %68, p, 1, 1;\n}"
        : ATTN_SUMS_64
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
  }
}

}  // namespace attn::gpu
