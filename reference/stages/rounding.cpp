#include "reference/stages/rounding.h"

#include <cmath>

namespace attn::reference {

double Rounding::to(ElementType type, double v) const { return exact() ? v : round_to(type, v); }

Matrix Rounding::to(ElementType type, Matrix v) const {
  if (exact()) {
    return v;
  }
  return v.unaryExpr([type](double e) { return round_to(type, e); });
}

double Rounding::fma(ElementType type, double a, double b, double c) const {
  if (exact()) {
    return a * b + c;
  }
  if (type == ElementType::kFloat32) {
    return std::fma(static_cast<float>(a), static_cast<float>(b), static_cast<float>(c));
  }
  // The product of two 16-bit floats is exact in double, so only a sum of terms more than 2^30
  // apart is rounded before round_to.
  return round_to(type, std::fma(a, b, c));
}

}  // namespace attn::reference
