#include "harness/compare/bound.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace attn::harness {
namespace {

double ceil_div(std::int64_t n, std::int64_t d) {
  const std::int64_t quotient = (n + d - 1) / d;
  return static_cast<double>(quotient);
}

}  // namespace

double elementary_roundoff(Accumulator accumulator) {
  return accumulator == Accumulator::kFloat64 ? 0x1p-53 : 0x1p-24;
}

double underflow_error(ElementType type) {
  switch (type) {
    case ElementType::kFloat64:
      return std::numeric_limits<double>::min();
    case ElementType::kFloat16:
      return 0x1p-25;
    case ElementType::kFloat8E4M3FN:
      return 0x1p-10;
    case ElementType::kFloat8E5M2:
      return 0x1p-17;
    default:
      return 0x1p-126;  // float32, bfloat16: hardware may flush subnormals
  }
}

double rounding(ElementType type, double y, double d) {
  return unit_roundoff(type) * (std::abs(y) + d) + 2.0 * underflow_error(type);
}

double rounding_deviation(ElementType type, double y) {
  return (unit_roundoff(type) * std::abs(y) + underflow_error(type)) / std::sqrt(3.0);
}

SumBound::SumBound(Accumulator accumulator, std::int64_t n, double chain)
    : cap_(std::numeric_limits<double>::infinity()) {
  const double count = static_cast<double>(n);
  const double u = elementary_roundoff(accumulator);
  const auto walk = [](double h) { return std::min(h, kSumDeviations * std::sqrt(h)); };
  switch (accumulator) {
    case Accumulator::kFloat32:
    case Accumulator::kFloat64:
      a_ = u * walk(chain);
      square_ = u * chain;
      break;
    case Accumulator::kFloat32TensorCore:  // truncates: biased, so linear in the number of steps
      a_ = 2.0 * u * (ceil_div(n, 16) + 1.0) + u;
      break;
    case Accumulator::kFloat16: {
      const double h = ceil_div(n, 8) + 1.0;
      a_ = 0x1p-11 * walk(h);
      square_ = 0x1p-11 * h;
      min_ = 0x1p-11;
      constant_ = (h + 1.0) * 0x1p-25;
      break;
    }
    case Accumulator::kFp8_14Bit: {
      const double h = ceil_div(n, 32) + 1.0;
      y_ = e_ = 0x1p-13 * (h + kSumDeviations * std::sqrt(count));
      square_ = 0x1p-13 * count;
      cap_ = 0x1p-13 * (count + h);
      break;
    }
    case Accumulator::kFp8_14BitPromoted128: {
      const double h = std::min(ceil_div(n, 32) + 1.0, 5.0);
      y_ = 0x1p-13 * h;
      e_ = 0x1p-13 * (h + kSumDeviations * std::sqrt(count));
      square_ = 0x1p-13 * std::min(count, 128.0);
      a_ = u * count / 128.0;
      break;
    }
  }
}

double sum_error(Accumulator accumulator, std::int64_t n, double chain, double y, double a,
                 double e) {
  return SumBound(accumulator, n, chain)(y, a, e);
}

double chain_length(std::int64_t n, std::int64_t lanes) {
  if (lanes <= 1) return static_cast<double>(n);
  return ceil_div(n, lanes) + std::log2(static_cast<double>(lanes));
}

double online_chain_length(std::int64_t n, std::int64_t block, std::int64_t splits) {
  const std::int64_t step = block > 0 ? std::min(n, block) : n;
  return static_cast<double>(step) + 3.0 * (step > 0 ? ceil_div(n, step) : 0.0) +
         4.0 * static_cast<double>(splits);
}

double operand_error(double u, double y, double a, double e) {
  const double independent = kAllowanceDeviations * std::sqrt(2.0) * e + 2.0 * std::abs(y);
  return u * std::min(2.0 * a, independent);
}

Propagated propagate(const PropagationSums& s) {
  const double by_allowance = kAllowanceDeviations * std::sqrt(s.squares) + std::abs(s.coherent);
  const double by_deviation = kStandardDeviations * std::sqrt(s.variance) +
                              kCoherentDeviations * std::abs(s.coherent_deviation);
  return {std::min({s.linear, by_allowance, by_deviation}),
          s.variance + s.coherent_deviation * s.coherent_deviation};
}

}  // namespace attn::harness
