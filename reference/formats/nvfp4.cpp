#include "reference/formats/nvfp4.h"

#include "reference/core/quant_internal.h"
#include "reference/formats/e2m1.h"

namespace attn::reference {
namespace {

constexpr ElementType kF32 = ElementType::kFloat32;
constexpr ElementType kE4M3 = ElementType::kFloat8E4M3FN;
constexpr ElementType kE2M1 = ElementType::kFloat4E2M1FN;

/// The value of the block's e4m3 scale, for a largest magnitude g.
double block_scale(double g, double input_scale, Rounding r) {
  const double top = max_finite(kE2M1);
  if (r.exact()) {
    return round_to(kE4M3, g / top / input_scale);
  }
  const double t = r.to(kF32, 1.0 / input_scale);
  return round_to(kE4M3, r.to(kF32, t * r.to(kF32, g * r.to(kF32, 1.0 / top))));
}

}  // namespace

Matrix decode_nvfp4(const Tensor& weight, const Tensor& scale) {
  Matrix w = decode_e2m1(weight);
  return w.cwiseProduct(
      spread_scales(scale, w.rows(), w.cols(), {1, scale_block(QuantEncoding::kNvfp4)}).cwiseAbs());
}

QuantisedBlock quantise_nvfp4(const RowView& x, double input_scale, Rounding r) {
  const double s = block_scale(largest_magnitude(x), input_scale, r);
  if (s == 0.0) {
    return {Eigen::RowVectorXd::Zero(x.size()), 0.0};
  }
  const double scale = s * input_scale;
  if (r.exact()) {
    return {x.unaryExpr([&](double v) { return round_to(kE2M1, v / scale); }), scale};
  }
  const double back = r.to(kF32, 1.0 / r.to(kF32, 1.0 / input_scale));
  const double inverse = r.to(kF32, 1.0 / r.to(kF32, s * back));
  return {x.unaryExpr([&](double v) { return round_to(kE2M1, r.to(kF32, v * inverse)); }), scale};
}

}  // namespace attn::reference
