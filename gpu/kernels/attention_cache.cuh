// Reading caches into shared memory and widening their elements in registers.
#pragma once

#include "gpu/faults/fault_switch.h"
#include "gpu/kernels/batch.h"
#include "gpu/kernels/mma.cuh"

namespace attn::gpu {

/// Four e4m3 codes, the first in the lowest byte, as two pairs of 16-bit floats: exact, NaN stays
/// NaN.
template <typename T>
__device__ __forceinline__ uint2 widen_codes(std::uint32_t codes);
template <>
__device__ __forceinline__ uint2 widen_codes<Half>(std::uint32_t codes) {
  uint2 wide;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
  // The upper half as a register of its own: a conversion then reads it without a shift.
  asm("{\n .reg .b16 low, high;\n"
      " mov.b32 {low, high}, %2;\n"
      " cvt.rn.f16x2.e4m3x2 %0, low;\n"
      " cvt.rn.f16x2.e4m3x2 %1, high;\n}"
      : "=r"(wide.x), "=r"(wide.y)
      : "r"(codes));
#else
  const auto pair = [](std::uint32_t two) {
    const __half2_raw x =
        __nv_cvt_fp8x2_to_halfraw2(static_cast<__nv_fp8x2_storage_t>(two & 0xffffu), __NV_E4M3);
    return static_cast<std::uint32_t>(x.y) << 16 | x.x;
  };
  wide = make_uint2(pair(codes), pair(codes >> 16));
#endif
  return wide;
}
template <>
__device__ __forceinline__ uint2 widen_codes<Bf16>(std::uint32_t codes) {
  const uint2 half = widen_codes<Half>(codes);
  const auto pair = [](std::uint32_t two) {
    __half2_raw raw;
    raw.x = static_cast<unsigned short>(two & 0xffffu);
    raw.y = static_cast<unsigned short>(two >> 16);
    const float2 wide = __half22float2(raw);
    return pack2<Bf16>(wide.x, wide.y);
  };
  return make_uint2(pair(half.x), pair(half.y));
}

/// The codes of bytes 0 and 2 in the lower half, of 1 and 3 in the upper one: from two pairs along
/// a row to two pairs along a column.
__device__ __forceinline__ std::uint32_t pair_columns(std::uint32_t codes) {
  return __byte_perm(codes, 0u, 0x3120);
}

/// The chunk of 16 bytes that starts at element kChunk * c of a row with `dim` elements (a multiple
/// of 8): zeros behind its end. `row` may be anything legal when !valid.
template <typename C>
__device__ __forceinline__ void copy_chunk(std::uint32_t shared, const C* row, int c, int dim,
                                           bool valid) {
  if constexpr (sizeof(C) == 1) {
    if (dim % 16 != 0) {  // rows start at multiples of 8 bytes
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int d = 16 * c + 8 * half;
        const bool inside = valid && d < dim;
        copy_async_small<8>(shared + 8 * half, row + (inside ? d : 0), inside);
      }
      return;
    }
  }
  const int d = 16 / static_cast<int>(sizeof(C)) * c;
  const bool inside = valid && d < dim;
  copy_async_16(shared, row + (inside ? d : 0), inside);
}

/// Where a kv head's keys (or values) of a cache lie.
template <typename C>
struct CacheSide {
  const C* head = nullptr;       ///< of page 0, slot 0
  std::int64_t page_stride = 0;  ///< in elements
  std::int64_t token_stride = 0;
  const float* scale = nullptr;  ///< the head's first scale, of any granularity

  __device__ __forceinline__ const C* row(std::uint32_t page, std::uint32_t slot) const {
    return head + page * page_stride + slot * token_stride;
  }
};

/// Where the scales of a kv head begin.
__device__ __forceinline__ std::int64_t scale_of_head(const CacheView& cache, int kv_head) {
  if (ATTN_FAULT(cache_scale_of_head_0, kv_head > 0)) return 0;
  if (cache.scales == CacheScales::kHead) return kv_head;
  return cache.scales == CacheScales::kTokenHead ? kv_head * cache.scale_head_stride : 0;
}

template <typename C>
__device__ __forceinline__ CacheSide<C> keys_of(const CacheView& cache, int kv_head) {
  CacheSide<C> side{static_cast<const C*>(cache.k) + kv_head * cache.k_head_stride,
                    cache.k_page_stride, cache.k_token_stride, cache.k_scale};
  side.scale += scale_of_head(cache, kv_head);
  return side;
}
template <typename C>
__device__ __forceinline__ CacheSide<C> values_of(const CacheView& cache, int kv_head) {
  CacheSide<C> side{static_cast<const C*>(cache.v) + kv_head * cache.v_head_stride,
                    cache.v_page_stride, cache.v_token_stride, cache.v_scale};
  if (ATTN_FAULT(value_scale_of_keys, cache.scales != CacheScales::kNone)) {
    side.scale = cache.k_scale;
  }
  side.scale += scale_of_head(cache, kv_head);
  return side;
}

}  // namespace attn::gpu
