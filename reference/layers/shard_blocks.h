#pragma once

#include <cstdint>

#include "reference/core/config.h"
#include "reference/core/devices.h"
#include "reference/core/tensor.h"

namespace attn::reference {

/// True when fp8 weights have one scale for each block of quant.block rows and columns.
bool has_fp8_blocks(const AttentionConfig& config);

/// The scales of rows x columns of a weight, cut out of one scale for each block of `from`
/// [ceil(out/bn), ceil(in/bk)] and repeated so that there is one for each block of `to`. The blocks
/// of `to` divide those of `from` and start at the cut, so every weight keeps its scale.
Tensor take_block_scales(const Tensor& scale, Range rows, Range columns, const QuantConfig& from,
                         const QuantConfig& to);

}  // namespace attn::reference
