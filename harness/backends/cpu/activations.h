#pragma once

#include "harness/backends/cpu/unpack.h"
#include "harness/backends/cpu/weight_rows.h"
#include "reference/core/case.h"

namespace attn::harness::cpu {

/// Whether the inputs of projections become codes.
bool quantises_activations(const AttentionConfig& config);

/// Replaces x, the input of a projection or one device's slice of it, by what is multiplied: the
/// values of the codes that quant.activation makes of it, each rounded once. Blocks start at the
/// first column. Codes are chosen as in float64.
void quantise_activations(const Case& c, Matrix matrix, Rows& x);

}  // namespace attn::harness::cpu
