#pragma once

#include "reference/formats/block_scale.h"
#include "reference/stages/rounding.h"

namespace attn::reference {

/// Codes of a projection whose scale was `own`, rewritten for the scale `merged`, with which the
/// three projections of a static per-tensor layer are multiplied as one:
///   code' = e4m3(code * own / merged),    rounded once, saturating.
/// The layer as it runs rounds code * own, 1 / merged and their product to float32.
Matrix requantise_fp8(const Matrix& codes, double own, double merged, Rounding r);

/// x / scale as e4m3 codes, saturating at 448. The layer as it runs multiplies by 1 / scale, both
/// in float32. A scale of 0 (or one whose reciprocal is not finite in float32) gives codes 0.
QuantisedBlock quantise_fp8(const RowView& x, double scale, Rounding r);

/// The scale of activations that are quantised as they come (per token, or per 128 columns of one):
/// float32(min(max|x|, 1200) / 448). Larger values saturate.
double fp8_scale(const RowView& x);

/// A weight and its scale for hardware whose float8 is e4m3fnuz. The bits stay and mean half of
/// what they did, so the scale doubles; 0x80, -0 in e4m3fn and NaN in e4m3fnuz, becomes 0x00.
/// Infinite or NaN weights have no counterpart: the NaN codes 0x7f and 0xff become +-240, as the
/// bits say.
struct FnuzWeight {
  Tensor weight;  ///< float8_e4m3fnuz, the shape of the original
  Tensor scale;   ///< float32, the shape of the original
};
FnuzWeight e4m3fnuz_from_e4m3fn(const Tensor& weight, const Tensor& scale);

}  // namespace attn::reference
