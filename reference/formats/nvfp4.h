#pragma once

#include "reference/formats/block_scale.h"
#include "reference/stages/rounding.h"

namespace attn::reference {

/// e2m1 code * |block scale|, exact: weight [out, in/2] of nibbles, scale [out, in/16] e4m3. The
/// weight is this times its projection's weight_scale_2.
Matrix decode_nvfp4(const Tensor& weight, const Tensor& scale);

/// One block of activations, g = max|x|:
///   s = e4m3(g / 6 / input_scale)    code = e2m1(x / (s * input_scale))
/// with code * s * input_scale for x; a block whose s is 0 gives 0. `scale` of the result is s *
/// input_scale. The layer as it runs multiplies by reciprocals in float32:
///   t = 1 / input_scale    s = e4m3(t * (g * (1/6)))    code = e2m1(x * (1 / (s * (1/t)))).
QuantisedBlock quantise_nvfp4(const RowView& x, double input_scale, Rounding r);

}  // namespace attn::reference
