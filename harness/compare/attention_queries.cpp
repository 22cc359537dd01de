// Queries that attention rounds to codes before it multiplies them.
#include <algorithm>
#include <cmath>

#include "harness/compare/attention_block.h"

namespace attn::harness {
namespace {

constexpr ElementType kCodes = ElementType::kFloat8E4M3FN;
constexpr int kTopExponent = 7;  // of the largest query of a row, once it is scaled

void widen(const Bounded& rounded, Bounded& bound) {
  for (Eigen::Index i = 0; i < bound.y.size(); ++i) {
    // Where both are infinite (a row that sees no key), or the inputs carry NaN, nothing is added.
    const double apart = std::abs(rounded.y.data()[i] - bound.y.data()[i]);
    if (!std::isfinite(apart)) continue;
    double& d = bound.d.data()[i];
    const double grown = apart + std::max(0.0, rounded.d.data()[i] - d);
    d += grown;
    bound.s.data()[i] = apart + std::max(bound.s.data()[i], rounded.s.data()[i]);
    if (!bound.parts.empty()) bound.parts[static_cast<std::size_t>(i)].operand += grown;
  }
}

}  // namespace

Bounded round_queries(const Bounded& q) {
  Bounded out = q;
  for (Index r = 0; r < q.y.rows(); ++r) {
    const double most = q.y.row(r).cwiseAbs().maxCoeff();
    if (!std::isfinite(most) || most == 0.0) continue;
    const int up = kTopExponent - std::ilogb(most);
    for (Index c = 0; c < q.y.cols(); ++c) {
      out.y(r, c) = std::ldexp(round_to(kCodes, std::ldexp(q.y(r, c), up)), -up);
      if (q.exact()) continue;
      // What is rounded lies within d of q, and both roundings within half a gap of what they
      // round. The largest query may lie on the other side of a power of two.
      const double y = std::ldexp(std::abs(q.y(r, c)), up), d = std::ldexp(q.d(r, c), up);
      out.d(r, c) += std::ldexp(rounding(kCodes, y, d) + rounding(kCodes, y, 0.0), -up + 1);
      out.s(r, c) = std::hypot(q.s(r, c), std::ldexp(rounding_deviation(kCodes, y + d), -up + 1));
    }
  }
  return out;
}

void allow_either(const AttentionBlock& block, const AttentionBound& rounded,
                  AttentionBound& bound) {
  const RowMatrix& weight = block.output_weight;
  if (weight.size() != 0) {
    JointErrors& joint = bound.projected;
    const Index rows = joint.variance.rows(), dv = block.value_dim;
    const Index group = bound.out.y.rows() / std::max<Index>(1, rows);
    RowMatrix apart = RowMatrix::Zero(rows, weight.rows());
    for (Index i = 0; i < rows; ++i) {
      for (Index h = 0; h < group; ++h) {
        const Index r = i * group + h;
        apart.row(i) +=
            (rounded.out.y.row(r) - bound.out.y.row(r)) * weight.middleCols(h * dv, dv).transpose();
      }
    }
    apart = apart.cwiseAbs();
    joint.linear = joint.linear.cwiseMax(rounded.projected.linear) + apart;
    joint.variance =
        (joint.variance.cwiseMax(rounded.projected.variance).cwiseSqrt() + apart).cwiseAbs2();
  }
  widen(rounded.lse, bound.lse);
  widen(rounded.out, bound.out);
}

}  // namespace attn::harness
