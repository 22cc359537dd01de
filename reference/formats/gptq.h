#pragma once

#include <cstdint>

#include "reference/stages/rounding.h"

namespace attn::reference {

/// One projection's tensors.
struct GptqWeight {
  const Tensor& qweight;  ///< [in*bits/32, out] int32: codes along `in`, lowest bits first
  const Tensor& scales;   ///< [groups, out] float16
  const Tensor& g_idx;    ///< [in] int32: the group of each input column
  std::int64_t bits;      ///< 4 or 8
};

/// [out, in]:  w[n,k] = (code[k,n] - 2^(bits-1)) * scales[g_idx[k], n]. The zero points are not
/// read: the rules hold them to 2^(bits-1). The layer as it runs in bfloat16 cuts the scales to
/// bfloat16, toward zero; in every type it rounds the weight to that type.
Matrix decode_gptq(const GptqWeight& weight, ElementType dtype, Rounding r);

}  // namespace attn::reference
