#pragma once

#include <cstdint>

#include "gpu/device/device.h"
#include "gpu/kernels/bound.h"
#include "gpu/kernels/types.h"

namespace attn::gpu {

/// y = clip(x w^T + bias), rounded once to `out_type`: x [m, k] and w [n, k], dense and of `type`,
/// y [m, n]. Sums in float32; products of float32 are true float32, never tf32. Only these may have
/// another out_type.
struct GemmArguments {
  const void* x = nullptr;
  const void* w = nullptr;
  const float* bias = nullptr;  ///< [n] or none
  const void* typed_bias =
      nullptr;  ///< the same of out_type, where that is exact; gemm() reads `bias`
  void* y = nullptr;
  std::int64_t m = 0;
  std::int64_t n = 0;
  std::int64_t k = 0;
  float clip = kNoBound;  ///< bound of |y|
  Type type = Type::kFloat32;
  Type out_type = Type::kFloat32;
  std::int64_t y_stride = 0;  ///< elements from row to row of y; 0: n
};

/// Our own kernels: any shape and alignment. float32 on the CUDA cores, one sum in order of k;
/// bfloat16 and float16 on the tensor cores (mma.sync), 16 products a step in order of k. Rows of y
/// do not depend on m.
void gemm(const GemmArguments& arguments, StreamHandle stream);

}  // namespace attn::gpu
