#pragma once

#include <cstdint>

#include "harness/compare/arithmetic.h"
#include "reference/core/element.h"

// The arithmetic of error bounds, one element at a time. docs/numerics.md derives every formula.

namespace attn::harness {

/// The four constants of the bound, and the error of our own float64 evaluation.
inline constexpr double kSumDeviations = 2.0;        ///< of a sum's random-walk term, sqrt(chain)
inline constexpr double kAllowanceDeviations = 4.0;  ///< times root-sum-square of allowances
inline constexpr double kStandardDeviations = 6.0;   ///< times root-sum-square of deviations
inline constexpr double kCoherentDeviations = 1.8;   ///< times the part that moves as one
inline constexpr double kReferenceRoundoff = 1e-15;  ///< relative to a sum of magnitudes

/// Roundoff of one elementary operation: 2^-53 for float64 accumulators, else float32's 2^-24.
double elementary_roundoff(Accumulator accumulator);

/// Half the smallest subnormal of `type`, or the flush threshold where hardware may flush.
double underflow_error(ElementType type);

/// One rounding to `type` of a value y that is already off by at most d: u (|y| + d) + 2 eta.
double rounding(ElementType type, double y, double d);

/// Standard deviation of the same, at most: (u |y| + eta) / sqrt(3), as of a uniform error.
double rounding_deviation(ElementType type, double y);

/// Error of one sum in an accumulator, from y = sum t, A = sum |t| and E = sqrt(sum t^2) of its
/// terms. The coefficients depend on the accumulator and the lengths only; a sum of no magnitude
/// has no error.
class SumBound {
 public:
  /// n terms; `chain` is the longest chain of additions (used by the float32 and float64
  /// accumulators).
  SumBound(Accumulator accumulator, std::int64_t n, double chain);

  double operator()(double y, double a, double e) const {
    if (!(a > 0.0)) return a * 0.0;  // NaN stays NaN
    const double abs_y = y < 0.0 ? -y : y;
    const double four_e = kAllowanceDeviations * e;
    const double sum = a_ * a + y_ * abs_y + e_ * e + square_ * y * y / a +
                       min_ * (a < four_e ? a : four_e) + constant_;
    const double cap = cap_ * a;
    return (sum < cap ? sum : cap) + kReferenceRoundoff * a;
  }
  /// Whether E enters.
  bool needs_e() const { return e_ > 0.0 || min_ > 0.0; }

 private:
  double a_ = 0.0, y_ = 0.0, e_ = 0.0, square_ = 0.0, min_ = 0.0, constant_ = 0.0;
  double cap_;
};

/// SumBound in one call.
double sum_error(Accumulator accumulator, std::int64_t n, double chain, double y, double a,
                 double e);

/// Longest chain of additions in a sum of n terms over `lanes` partial sums.
double chain_length(std::int64_t n, std::int64_t lanes);
/// The same for one output of an online softmax over n keys.
double online_chain_length(std::int64_t n, std::int64_t block, std::int64_t splits);

/// Error of a sum of products whose operands are rounded once more with unit roundoff u:
/// u min(2A, 4 sqrt(2) E + 2 |y|).
double operand_error(double u, double y, double a, double e);

/// The five sums through which a sum z = sum w_k x_k passes on the errors of its x_k, each off by
/// at most d_k with standard deviation s_k.
struct PropagationSums {
  double linear = 0.0;              ///< sum |w| d
  double squares = 0.0;             ///< sum w^2 d^2
  double coherent = 0.0;            ///< sum w sgn(x) d
  double variance = 0.0;            ///< sum w^2 s^2
  double coherent_deviation = 0.0;  ///< sum w sgn(x) s
};
struct Propagated {
  double allowance = 0.0;
  double variance = 0.0;
};
Propagated propagate(const PropagationSums& sums);

/// One element's allowance by cause. The names are those that `explain` prints.
struct Allowance {
  double rounding = 0.0;       ///< own rounding, of the result and of elementary operations
  double sum = 0.0;            ///< accumulation
  double operand = 0.0;        ///< operands rounded further
  double scores = 0.0;         ///< errors of the logits, exponentials included
  double probabilities = 0.0;  ///< P rounded to its type
  double propagation = 0.0;    ///< errors of the inputs
  double codes = 0.0;          ///< either neighbour of a tie between codes
  double total() const {
    return rounding + sum + operand + scores + probabilities + propagation + codes;
  }
};

}  // namespace attn::harness
