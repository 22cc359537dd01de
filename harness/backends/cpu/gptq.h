#pragma once

#include <cstdint>

#include "harness/backends/cpu/unpack.h"
#include "reference/core/tensor.h"

namespace attn::harness::cpu {

/// A GPTQ weight [out, in] as its checkpoint stores it, with symmetric codes:
/// w[n, k] = (code[k, n] - 2^(bits - 1)) * scales[g_idx[k], n], exact in float32.
struct GptqWeight {
  std::int64_t bits = 4;            ///< 4 or 8
  const Tensor* qweight = nullptr;  ///< [ceil(in * bits / 32), out] int32, codes of consecutive k
                                    ///< from the lowest bits up
  const Tensor* scales = nullptr;   ///< [groups, out] float16
  const Tensor* g_idx = nullptr;    ///< [in] int32

  /// Rows first .. first + rows.count - 1 into `rows`.
  void decode(std::int64_t first, Rows& rows) const;
};

}  // namespace attn::harness::cpu
