#pragma once

#include <string>

#include "reference/core/case.h"
#include "reference/core/devices.h"

namespace attn::reference {

/// Items `range` of the codes of `bits` bits that fill the int32 words of one axis (0 or 1) of
/// `stored`, lowest bits first, packed again from the first one on.
Tensor take_packed(const Tensor& stored, std::size_t axis, Range range, std::int64_t bits);

/// The largest group size, dividing `quant.group_size`, in which input columns `columns` of a
/// projection can be stored alone: groups that start at the cut, or, where the columns' groups are
/// scattered (desc_act), as many groups as the columns use. -1 (whole rows) stays.
std::int64_t gptq_group_size(const Tensor& g_idx, Range columns, const QuantConfig& quant);

/// Stores a projection's scales, qzeros and g_idx in groups of `size` columns; every weight keeps
/// its scale and zero point. `size` is a group size that gptq_group_size allows.
void regroup(LayerWeights& weights, const std::string& projection, std::int64_t size);

}  // namespace attn::reference
