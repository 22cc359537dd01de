// What the errors of a block's outputs bring to the output projection.
#include <algorithm>

#include "harness/compare/attention_block.h"

namespace attn::harness {

/// Sums p (w.v)^2 for each head and row w of its output weight.
void BlockBound::accumulate_output(const RowMatrix& v, Index at) {
  const Index dv = block_.value_dim;
  using Strided = Eigen::Map<RowMatrix, 0, Eigen::OuterStride<>>;
  for (Index h = 0; h < group_; ++h) {
    const RowMatrix wv = v * block_.output_weight.middleCols(h * dv, dv).transpose();
    const Strided p(&p_(h, at), m_ / group_, v.rows(), Eigen::OuterStride<>(group_ * n_));
    Strided(&output_spread_(h, 0), m_ / group_, wv.cols(), Eigen::OuterStride<>(group_ * wv.cols()))
        .noalias() += p * wv.cwiseAbs2();
  }
}

/// A sum of p_j delta_j a_j over keys, for any a, is at most this times sqrt(sum p a^2): by the
/// Cauchy-Schwarz inequality.
double BlockBound::rigorous_logit_error(const RowSums& sums) const {
  return std::sqrt(sums.weight_squares) / sums.denominator;
}

/// Standard deviation of the same sum, with the key errors' p fk^2 at their largest.
double BlockBound::logit_deviation(const RowSums& sums) const {
  const double rigorous = rigorous_logit_error(sums);
  if (!propagates()) return rigorous / kStandardDeviations;
  const double first_order =
      (std::sqrt(sums.own_squares) + std::sqrt(sums.query_squares + sums.key_peak)) *
      std::exp(2.0 * sums.max_ds);
  // The largest error may be no multiple of its deviation: a code at a tie has two values, and is
  // as often off by all of it as not.
  return std::min(rigorous, first_order / kStandardDeviations);
}

/// What the group brings to each output. All channels of a head share the logits' error, and all
/// heads of the group the errors of keys and values: deviations of heads add up linearly.
void BlockBound::project_errors() {
  const RowMatrix& weight = block_.output_weight;
  if (weight.size() == 0) return;
  const Index dv = block_.value_dim, rows = m_ / group_;
  result_.projected.variance = result_.projected.linear = RowMatrix::Zero(rows, weight.rows());
  for (Index h = 0; h < group_; ++h) {
    const auto w = weight.middleCols(h * dv, dv);
    const Eigen::ArrayXd length2 = w.rowwise().squaredNorm().array();
    for (Index i = 0; i < rows; ++i) {
      const Index r = i * group_ + h;
      const RowSums& sums = sums_[static_cast<std::size_t>(r)];
      if (sums.count == 0) continue;
      const Eigen::ArrayXd own =
          (w.cwiseAbs2() * result_.out.s.row(r).cwiseAbs2().transpose()).array();
      const auto reach = [&w](const auto& row) {
        return Eigen::ArrayXd((w.cwiseAbs() * row.transpose()).array());
      };
      Eigen::ArrayXd shared, linear = reach(result_.out.d.row(r));
      if (sums.large()) {  // a row that flips: any direction, two points
        shared = length2 * (large_logit_squares_[r] / square(1.5));
      } else if (output_spread_.size() != 0) {
        const Eigen::ArrayXd x2 = (w * o_.row(r).transpose()).array().square();
        const auto sum = output_spread_.row(r).transpose().array();
        const Eigen::ArrayXd spread =
            (sum - x2 * (1.0 + sums.p_sink)).max(0.0) + kCancellation * (sum + x2);
        shared = square(logit_deviation(sums)) * spread;
        linear = linear.min(reach(own_errors_.row(r)) + rigorous_logit_error(sums) * spread.sqrt());
      } else {
        shared = length2 * (square(logit_deviation(sums)) * v2_.row(r).sum());
      }
      result_.projected.variance.row(i).array() += (own + shared).sqrt().transpose();
      result_.projected.linear.row(i).array() += linear.transpose();
    }
  }
  result_.projected.variance = result_.projected.variance.cwiseAbs2();
}

}  // namespace attn::harness
