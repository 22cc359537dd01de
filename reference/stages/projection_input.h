#pragma once

#include <cstdint>
#include <vector>

#include "reference/core/devices.h"
#include "reference/stages/weights.h"

namespace attn::reference {

/// The input of a projection as the layer multiplies it: value = code * scale, element by element.
/// Where quant.activation rounds nothing, code is x and scale is 1.
struct ProjectionInput {
  Matrix code;   ///< [rows, in] values of the codes: e4m3, e2m1, or whole numbers -127 .. 127
  Matrix scale;  ///< [rows, in] the scale that each element's code is multiplied by

  Matrix value() const { return code.cwiseProduct(scale); }
};

/// x [rows, in] in the codes of quant.activation, for projection p. q, k and v share one static
/// scale, the largest of their three input_scales; o_proj has its own. Under tensor_parallel each
/// device quantises its own slice of o_proj's input, and blocks start at the slice.
ProjectionInput projection_input(const Case& c, Projection p, const MatrixView& x, Rounding r);

/// Whether quant.activation turns activations into codes at all.
bool quantises_input(const AttentionConfig& config);

/// The columns of p's input, `columns` wide, that are quantised together, row by row. With a static
/// scale or one per token that is a device's whole slice.
std::vector<Range> activation_blocks(const AttentionConfig& config, Projection p,
                                     std::int64_t columns);

}  // namespace attn::reference
