// wgmma with A in registers for the coded products whose x may have few rows: also 16 columns of B,
// and always adding. Fences and waits as in wgmma_codes.cuh.
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
      "{%0, %1, %2, %3, %4, %5, %6, %7}, " \
      "{%8, %9, %10, %11}, b, 1, 1, 1, 0;\n}" \
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]) \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(lower), "n"(kWgmmaUpper))
#define ATTN_WGMMA_NARROW_32(TYPES) \
  asm volatile( \
      "{\n.reg .b64 b;\nmov.b64 b, {%20, %21};\n" \
      "wgmma.mma_async.sync.aligned.m64n32k16.f32." TYPES " " \
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}, " \
      "{%16, %17, %18, %19}, b, 1, 1, 1, 0;\n}" \
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), \
        "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]) \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(lower), "n"(kWgmmaUpper))
#define ATTN_WGMMA_NARROW_64(TYPES) \
  asm volatile( \
      "{\n.reg .b64 b;\nmov.b64 b, {%36, %37};\n" \
      "wgmma.mma_async.sync.aligned.m64n64k16.f32." TYPES " " \
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15," \
      " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, " \
      "{%32, %33, %34, %35}, b, 1, 1, 1, 0;\n}" \
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), \
        "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), \
        "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), \
        "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]) \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(lower), "n"(kWgmmaUpper))
#define ATTN_WGMMA_NARROW_128(TYPES) \
  asm volatile( \
      "{\n.reg .b64 b;\nmov.b64 b, {%68, %69};\n" \
      "wgmma.mma_async.sync.aligned.m64n128k16.f32." TYPES " " \
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15," \
      " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31," \
      " %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47," \
      " %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, " \
      "{%64, %65, %66, %67}, b, 1, 1, 1, 0;\n}" \
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), \
        "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), \
        "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), \
        "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]), \
        "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), \
        "+f"(d[40]), "+f"(d[41]), "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]), \
        "+f"(d[48]), "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]), \
        "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63]) \
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
