#include "reference/formats/fp8.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace attn::reference {
namespace {

constexpr ElementType kF32 = ElementType::kFloat32;
constexpr ElementType kE4M3 = ElementType::kFloat8E4M3FN;

}  // namespace

Matrix requantise_fp8(const Matrix& codes, double own, double merged, Rounding r) {
  const double inverse = r.to(kF32, 1.0 / merged);
  return codes.unaryExpr([&](double code) {
    const double weight = r.to(kF32, code * own);
    return round_to(kE4M3, r.exact() ? weight / merged : r.to(kF32, weight * inverse));
  });
}

QuantisedBlock quantise_fp8(const RowView& x, double scale, Rounding r) {
  const double inverse = r.to(kF32, 1.0 / scale);
  if (std::isinf(inverse)) {
    return {Eigen::RowVectorXd::Zero(x.size()), scale};
  }
  return {x.unaryExpr([&](double v) {
            return round_to(kE4M3, r.exact() ? v / scale : r.to(kF32, v * inverse));
          }),
          scale};
}

double fp8_scale(const RowView& x) {
  constexpr double kCap = 1200.0;  // of max|x|, not of the scale
  return round_to(kF32, std::min(largest_magnitude(x), kCap) / max_finite(kE4M3));
}

FnuzWeight e4m3fnuz_from_e4m3fn(const Tensor& weight, const Tensor& scale) {
  constexpr std::uint64_t kNegativeZero = 0x80;
  FnuzWeight fnuz{Tensor(ElementType::kFloat8E4M3FNUZ, weight.shape()),
                  Tensor(kF32, scale.shape())};
  for (std::int64_t i = 0; i < weight.size(); ++i) {
    const std::uint64_t code = weight.code(i);
    fnuz.weight.set_code(i, code == kNegativeZero ? 0 : code);
  }
  for (std::int64_t i = 0; i < scale.size(); ++i) {
    fnuz.scale.set_value(i, 2.0 * scale.value(i));
  }
  return fnuz;
}

}  // namespace attn::reference
