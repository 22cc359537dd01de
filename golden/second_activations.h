#pragma once

#include <string>
#include <vector>

#include "golden/second_matrix.h"
#include "reference/core/case.h"

namespace attn::golden {

/// Rounds the input of a projection [rows, in] to the codes of quant.activation and back, in
/// place. Under tensor_parallel each device rounds its own columns of o_proj's input, and its
/// blocks start there.
void quantise_input(const Case& c, const std::string& projection, Matrix& x);

}  // namespace attn::golden
