#include "reference/stages/rounding.h"

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace attn::reference {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

}  // namespace

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
  // The product of two values of at most 24 bits is exact. The sum may not be: `lost` is what
  // float64 drops of it (Knuth's two-sum). Moved to an odd last bit on the side of what was lost,
  // the sum rounds to a shorter type as the true one does (Boldo and Melquiond 2008).
  const double product = a * b;
  const double sum = product + c;
  const double added = sum - product;
  const double lost = (product - (sum - added)) + (c - added);
  if ((lost < 0.0 || lost > 0.0) && std::bit_cast<std::uint64_t>(sum) % 2 == 0) {
    return round_to(type, std::nextafter(sum, std::copysign(kInfinity, lost)));
  }
  return round_to(type, sum);
}

}  // namespace attn::reference
