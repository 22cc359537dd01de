// The logits of a block and what each may be off by.
#include <algorithm>

#include "harness/compare/attention_block.h"

namespace attn::harness {
namespace {

/// Relative error of a constant of the config, which all but float64 backends hold in float32.
double constant_error(const Arithmetic& arithmetic, double value) {
  if (arithmetic.store == ElementType::kFloat64 || value == 0.0) return 0.0;
  return std::abs(round_to(ElementType::kFloat32, value) / value - 1.0);
}

}  // namespace

void BlockBound::compute_scores() {
  const Bounded& q = block_.q;
  t_.resize(m_, n_);
  ds_.resize(m_, n_);
  const bool needs_e = score_sum_.needs_e() || arithmetic_.operand_roundoff > 0.0;
  if (needs_e) score_squares_.resize(m_, n_);
  const RowMatrix abs_q = q.y.cwiseAbs();
  for (Index at = 0; at < n_; at += kChunk) {
    const Index count = std::min<Index>(kChunk, n_ - at);
    const Bounded k = block_.keys(block_.first_key + at, count);
    t_.middleCols(at, count).noalias() = q.y * k.y.transpose();
    ds_.middleCols(at, count).noalias() = abs_q * k.y.cwiseAbs().transpose();
    if (needs_e) {
      score_squares_.middleCols(at, count).noalias() =
          q.y.cwiseAbs2() * k.y.cwiseAbs2().transpose();
    }
    if (!q.exact() || !k.exact()) add_score_propagation(k, at);
  }
}

void BlockBound::add_score_propagation(const Bounded& k, Index at) {
  const Bounded& q = block_.q;
  const Index count = k.y.rows();
  if (!propagates()) {
    prop_.linear = RowMatrix::Zero(m_, n_);
    prop_.query = prop_.key = prop_.linear;
    prop_.sq_norm = Eigen::ArrayXd::Zero(m_);
    prop_.sk_norm = Eigen::ArrayXd::Zero(n_);
  }
  const auto ratio = [](const auto& s, const auto& y) {  // |s| / |y| by row, 0 where y is 0
    const Eigen::ArrayXd ny = y.rowwise().norm().array();
    return Eigen::ArrayXd((ny > 0.0).select(s.rowwise().norm().array() / ny, 0.0));
  };
  const auto dot = t_.middleCols(at, count).cwiseAbs();
  if (!q.exact()) {
    prop_.linear.middleCols(at, count).noalias() += q.d * k.y.cwiseAbs().transpose();
    const RowMatrix spread = q.s.cwiseAbs2() * k.y.cwiseAbs2().transpose();
    prop_.query.middleCols(at, count) =
        kStandardDeviations * spread.cwiseSqrt() +
        kCoherentDeviations * (ratio(q.s, q.y).matrix().asDiagonal() * dot);
    prop_.sq_norm = q.s.rowwise().norm().array();
  }
  if (!k.exact()) {
    const RowMatrix reach = q.exact() ? RowMatrix(q.y.cwiseAbs()) : RowMatrix(q.y.cwiseAbs() + q.d);
    prop_.linear.middleCols(at, count).noalias() += reach * k.d.transpose();
    const RowMatrix spread = q.y.cwiseAbs2() * k.s.cwiseAbs2().transpose();
    prop_.key.middleCols(at, count) =
        kStandardDeviations * spread.cwiseSqrt() +
        kCoherentDeviations * (dot * ratio(k.s, k.y).matrix().asDiagonal());
    prop_.sk_norm.segment(at, count) = k.s.rowwise().norm().array();
  }
}

/// What the dot product and its scaling make of a logit: scale (S + Op) + 3 u |t|.
void BlockBound::own_score_errors(Index r, const RowSums& sums, Row t, Row own) {
  const double u_operand = arithmetic_.operand_roundoff;
  const bool half = arithmetic_.attention_acc == Accumulator::kFloat16;
  const double relative =
      3.0 * u_ + constant_error(arithmetic_, block_.scale) + (half ? 0x1p-11 : 0.0);
  for (Index j = 0; j < t.size(); ++j) {
    const double y = t[j], a = own[j];
    double e = 0.0;
    if (score_squares_.size() != 0) e = std::sqrt(score_squares_(r, sums.begin + j));
    double error = score_sum_(y, a, e) + block_.cache_error * a;
    if (u_operand > 0.0) error += operand_error(u_operand, y, a, e);
    t[j] = block_.scale * y;
    own[j] = scale_ * error + relative * std::abs(t[j]);
  }
}

/// prop_j, before the cap. Empty with taps.
Eigen::ArrayXd BlockBound::propagated_score_errors(Index r) const {
  if (!propagates()) return {};
  const RowSums& sums = sums_[static_cast<std::size_t>(r)];
  const Index n = sums.count;
  const auto fq = prop_.query.row(r).segment(sums.begin, n).array().transpose();
  const auto fk = prop_.key.row(r).segment(sums.begin, n).array().transpose();
  const auto linear = prop_.linear.row(r).segment(sums.begin, n).array().transpose();
  const auto both = 2.0 * prop_.sq_norm[r] * prop_.sk_norm.segment(sums.begin, n);
  return scale_ * linear.min((fq.square() + fk.square()).sqrt() + both);
}

/// t' = C tanh(t / C). Errors shrink by the largest slope in reach, so that a saturated logit stays
/// covered; f_q and f_k shrink alike.
void BlockBound::apply_cap(Row t, Row own, Eigen::ArrayXd& prop, Index r) {
  if (!block_.softcap) return;
  const double cap = *block_.softcap;
  const double relative = 4.0 * u_ + constant_error(arithmetic_, cap) + kReferenceRoundoff;
  const std::int64_t begin = sums_[static_cast<std::size_t>(r)].begin;
  for (Index j = 0; j < t.size(); ++j) {
    const double reach = own[j] + (prop.size() != 0 ? prop[j] : 0.0);
    const double nearest = std::tanh(std::max(0.0, std::abs(t[j]) - reach) / cap);
    const double slope = 1.0 - nearest * nearest;
    t[j] = cap * std::tanh(t[j] / cap);
    own[j] = own[j] * slope + relative * std::abs(t[j]);
    if (prop.size() == 0) continue;
    prop[j] *= slope;
    prop_.query(r, begin + j) *= slope;
    prop_.key(r, begin + j) *= slope;
  }
}

void BlockBound::apply_mask(Index r, Row t, Row own) {
  const std::vector<double>& added = mask(r).added;
  for (std::size_t j = 0; j < added.size(); ++j) {
    const Index i = static_cast<Index>(j);
    if (added[j] == -kInfinity) {
      t[i] = -kInfinity;
      own[i] = 0.0;
    } else {
      t[i] += added[j];
      own[i] += u_ * (std::abs(t[i]) + std::abs(added[j]));
    }
  }
}

}  // namespace attn::harness
