// Results of the coded products on their way out. Host builds compile it too.
#pragma once

#include "gpu/kernels/coded_gemm.h"
#include "gpu/kernels/element.cuh"

namespace attn::gpu {

__device__ __forceinline__ float finish_coded(const CodedGemmArguments& a, std::int64_t n,
                                              float y) {
  if (a.bias != nullptr) y += a.bias[n];
  return held_within(y, a.clip);
}
__device__ __forceinline__ void store_result(const CodedGemmArguments& a, std::int64_t m,
                                             std::int64_t n, float y) {
  store_element(a.y, a.out_type, m * a.y_stride + n, finish_coded(a, n, y));
}

}  // namespace attn::gpu
