#pragma once

#include "reference/stages/weights.h"

namespace attn::reference {

/// x W^T of projection p, [rows, out], with x [rows, in] quantised as the config says:
/// projection_input * projection_weight^T. Sums are not rounded. The layer as it runs multiplies
/// the sums of products of codes by the scales in float32:
///   static float8, nvfp4   y = sum * (s_x * s_w), the product of the scales first
///   other float8           y = sum of block sums * s_x * s_w, from left to right
///   GGUF int8              block after block, see multiply_int8
Matrix multiply(const Case& c, Projection p, const MatrixView& x, Rounding r);

}  // namespace attn::reference
