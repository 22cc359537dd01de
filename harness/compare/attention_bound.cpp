#include "harness/compare/attention_bound.h"

#include <algorithm>
#include <utility>

#include "harness/compare/attention_block.h"

namespace attn::harness {

void BlockBound::prepare_row(Index r) {
  RowSums& sums = sums_[static_cast<std::size_t>(r)];
  sums.begin = mask(r).begin - block_.first_key;
  sums.end = mask(r).end - block_.first_key;
  sums.count = std::max<std::int64_t>(0, sums.end - sums.begin);
  if (!block_.sinks.empty()) {
    sums.sink = sums.max = sums.lse = block_.sinks[static_cast<std::size_t>(r % group_)];
    sums.p_sink = 1.0;
  }
  p_.row(r).setZero();
  if (sums.count == 0) return;
  const Row t(&t_(r, sums.begin), sums.count), own(&ds_(r, sums.begin), sums.count);
  Eigen::ArrayXd prop = propagated_score_errors(r);
  own_score_errors(r, sums, t, own);
  apply_cap(t, own, prop, r);
  apply_mask(r, t, own);
  softmax_row(r, t, own, prop);
}

/// Probabilities, the last part of the logits' errors, and the sums over keys that need no values.
void BlockBound::softmax_row(Index r, const Row& t, Row own, const Eigen::ArrayXd& prop) {
  RowSums& sums = sums_[static_cast<std::size_t>(r)];
  if (t.maxCoeff() == -kInfinity) {  // a tensor mask hid every key
    sums.count = 0;
    return;
  }
  sums.max = std::max(t.maxCoeff<Eigen::PropagateNaN>(), sums.sink);
  const double m = sums.max, u = u_ + kReferenceRoundoff;
  Row p(&p_(r, sums.begin), sums.count);
  p = (t - m).exp();
  const double sink = std::exp(sums.sink - m), z = p.sum() + sink;
  sums.lse = m + std::log(z);
  sums.p_sink = sink / z;
  sums.p_max = 1.0 / z;
  p *= 1.0 / z;
  own += u * (std::abs(m) + 2.0 * (t - m).abs()) + arithmetic_.exp_rel;
  if (!mask(r).added.empty()) own = (t == -kInfinity).select(0.0, own);

  double log_growth;  // log(sum p e^ds + p_sink)
  const Eigen::ArrayXd own_alone = prop.size() != 0 ? Eigen::ArrayXd(own) : Eigen::ArrayXd();
  if (prop.size() != 0) own += (t == -kInfinity).select(0.0, prop);
  const Row& ds = own;
  sums.max_ds = ds.maxCoeff<Eigen::PropagateNaN>();
  if (!sums.large()) {
    const Eigen::ArrayXd w = ds.expm1();
    sums.weights = (p * w).sum();
    sums.weight_squares = (p * w.square()).sum();
    sums.denominator = (p / (1.0 + w)).sum() + sums.p_sink;
    log_growth = std::log1p(sums.weights);
    if (prop.size() != 0) {
      const auto fq =
          scale_ * prop_.query.row(r).segment(sums.begin, sums.count).array().transpose();
      const auto fk = scale_ * prop_.key.row(r).segment(sums.begin, sums.count).array().transpose();
      Row(&pw_(r, sums.begin), sums.count) = p * w;
      Row(&key_weights_(r, sums.begin), sums.count) = (p * fk).square();
      sums.own_squares = (p * own_alone.expm1().square()).sum();
      sums.query_squares = (p * fq.square()).sum();
      sums.key_squares = (p * fk).square().sum();
      sums.key_peak = (p * fk.square()).maxCoeff();
    }
  } else {
    const Eigen::ArrayXd up = t - sums.lse + ds, down = t - sums.lse - ds;
    const double top = std::max(up.maxCoeff(), sums.sink - sums.lse);
    log_growth = top + std::log((up - top).exp().sum() + std::exp(sums.sink - sums.lse - top));
    const double low = std::max(down.maxCoeff(), sums.sink - sums.lse);
    sums.log_denominator =
        low + std::log((down - low).exp().sum() + std::exp(sums.sink - sums.lse - low));
  }
  put(result_.lse, r, 0, sums.lse, lse_allowance(sums, log_growth), 0.0);
}

Allowance BlockBound::lse_allowance(const RowSums& sums, double log_growth) const {
  const double h = online_chain_length(sums.count, arithmetic_.block, arithmetic_.splits);
  Allowance a;
  a.scores = log_growth;
  a.sum = u_ * (h + kSumDeviations * std::sqrt(h) + 4.0) +
          2.0 * static_cast<double>(sums.count) * 0x1p-126;
  a.rounding = (u_ + kReferenceRoundoff) * (3.0 * std::abs(sums.max) + 2.0 * std::abs(sums.lse));
  if (arithmetic_.lse_from_rounded_probabilities) {
    a.probabilities = u_p_;
  }
  if (unit_roundoff(arithmetic_.lse) > u_) {
    a.rounding += rounding(arithmetic_.lse, sums.lse, a.total());
  }
  return a;
}

AttentionBound BlockBound::run() {
  result_ = {Bounded::zeros(m_, 1), Bounded::zeros(m_, block_.value_dim), {}};
  if (options_.parts) {
    result_.lse.parts.resize(static_cast<std::size_t>(m_));
    result_.out.parts.resize(static_cast<std::size_t>(m_ * block_.value_dim));
  }
  sums_.resize(static_cast<std::size_t>(m_));
  compute_scores();
  p_.resize(m_, n_);
  if (propagates()) pw_ = key_weights_ = RowMatrix::Zero(m_, n_);
  for (Index r = 0; r < m_; ++r) prepare_row(r);
  accumulate_values();
  large_logit_squares_ = Eigen::ArrayXd::Zero(m_);
  if (output_spread_.size() != 0) own_errors_ = RowMatrix::Zero(m_, block_.value_dim);
  for (Index r = 0; r < m_; ++r) finish_row(r);
  project_errors();
  return std::move(result_);
}

AttentionBound attend(const AttentionBlock& block, const BoundOptions& options) {
  AttentionBound bound = BlockBound(block, options).run();
  if (!options.arithmetic.e4m3_queries) return bound;
  AttentionBlock rounded = block;
  rounded.q = round_queries(block.q);
  allow_either(block, BlockBound(rounded, options).run(), bound);
  return bound;
}

}  // namespace attn::harness
