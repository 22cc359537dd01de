#include "reference/formats/mxfp.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "reference/core/quant_internal.h"
#include "reference/formats/e2m1.h"

namespace attn::reference {
namespace {

Matrix scaled(const Matrix& codes, const Tensor& scale) {
  return codes.cwiseProduct(
      spread_scales(scale, codes.rows(), codes.cols(), {1, scale_block(QuantEncoding::kMxfp4)}));
}

/// 2^ceil(log2(v)), clamped to what e8m0 holds; NaN for NaN.
double power_of_two_above(double v) {
  constexpr int kLargest = 127;
  if (std::isnan(v)) {
    return v;
  }
  if (std::isinf(v)) {
    return std::ldexp(1.0, kLargest);
  }
  if (v == 0.0) {
    return std::ldexp(1.0, -kLargest);
  }
  int exponent = 0;
  const double mantissa =
      std::frexp(v, &exponent);  // v = mantissa * 2^exponent, 0.5 <= mantissa < 1
  const int ceiling = mantissa == 0.5 ? exponent - 1 : exponent;
  return std::ldexp(1.0, std::clamp(ceiling, -kLargest, kLargest));
}

}  // namespace

Matrix decode_mxfp4(const Tensor& weight, const Tensor& scale) {
  return scaled(decode_e2m1(weight), scale);
}

Matrix decode_mxfp8(const Tensor& weight, const Tensor& scale) {
  return scaled(decode_matrix(weight, weight.dim(0), weight.dim(1)), scale);
}

QuantisedBlock quantise_mx(const RowView& x, ElementType type) {
  const double scale = power_of_two_above(largest_magnitude(x) / max_finite(type));
  // e2m1 has no NaN: a NaN scale carries it into the value.
  return {x.unaryExpr([&](double v) { return round_to(type, v / scale); }), scale};
}

}  // namespace attn::reference
