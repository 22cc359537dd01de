#pragma once

#include "reference/formats/block_scale.h"

namespace attn::reference {

/// code * 2^(e - 127), exact: weight [out, in/2] of e2m1 nibbles, scale [out, in/32] e8m0.
Matrix decode_mxfp4(const Tensor& weight, const Tensor& scale);

/// The same with weight [out, in] e4m3.
Matrix decode_mxfp8(const Tensor& weight, const Tensor& scale);

/// One block of activations as codes of `type` (e2m1 or e4m3), with the smallest power of two that
/// lets none of them saturate:
///   scale = 2^ceil(log2(max|x| / top)), the exponent clamped to -127 .. 127    code = type(x /
///   scale)
/// where top is the largest value of the type, 6 or 448. Nothing in it rounds but the code.
QuantisedBlock quantise_mx(const RowView& x, ElementType type);

}  // namespace attn::reference
