#pragma once

#include "reference/stages/matrix.h"

namespace attn::reference {

/// Rows first .. first+rows-1 of an unquantised weight [out, in] (float32, bfloat16, float16),
/// decoded.
Matrix decode_dense(const Tensor& weight, std::int64_t first, std::int64_t rows);

}  // namespace attn::reference
