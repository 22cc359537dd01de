// The outputs of a block and what each may be off by.
#include <algorithm>

#include "harness/compare/attention_block.h"

namespace attn::harness {

/// P times the values and all other products over keys.
void BlockBound::accumulate_values() {
  const Index dv = block_.value_dim;
  const SumBound sum(arithmetic_.attention_acc, n_, 1.0);
  const bool needs_e =
      options_.deviations || sum.needs_e() || arithmetic_.operand_roundoff > 0.0 || u_p_ > 0x1p-20;
  const bool needs_sum_v = eta_p_ > 0x1p-126;
  o_ = magnitude_ = v2_ = RowMatrix::Zero(m_, dv);
  all_v_ = Eigen::ArrayXd::Zero(dv);
  RowMatrix p2, seen;
  if (needs_e) e2_ = o_;
  if (needs_sum_v) sum_v_ = o_;
  if (propagates()) pw_dv_ = fk_v_ = fk_v2_ = o_;
  const double products = static_cast<double>(n_ * block_.output_weight.size());
  if (products > 0.0 && products < kMostOutputProducts) {
    output_spread_ = RowMatrix::Zero(m_, block_.output_weight.rows());
  }
  for (Index at = 0; at < n_; at += kChunk) {
    const Index count = std::min<Index>(kChunk, n_ - at);
    Bounded v = block_.values(block_.first_key + at, count);
    const bool finite = v.y.allFinite();
    if (!finite) {  // 0 * NaN is NaN: keys that a row does not see must not reach it
      for (Index r = 0; r < m_; ++r) {
        const RowSums& sums = sums_[static_cast<std::size_t>(r)];
        const Index from = std::max<Index>(0, sums.begin - at);
        const Index to = std::min<Index>(count, sums.end - at);
        for (Index j = from; j < to; ++j) {
          if (t_(r, at + j) == -kInfinity) continue;
          for (Index c = 0; c < dv; ++c) {
            if (!std::isfinite(v.y(j, c))) o_(r, c) = std::numeric_limits<double>::quiet_NaN();
          }
        }
      }
      v.y = v.y.unaryExpr([](double x) { return std::isfinite(x) ? x : 0.0; });
    }
    const auto p = p_.middleCols(at, count);
    const RowMatrix squares = v.y.cwiseAbs2(), magnitudes = v.y.cwiseAbs();
    o_.noalias() += p * v.y;
    magnitude_.noalias() += p * magnitudes;
    all_v_ += magnitudes.colwise().sum().transpose().array();
    v2_.noalias() += p * squares;
    if (needs_e) {
      p2 = p.cwiseAbs2();
      e2_.noalias() += p2 * squares;
    }
    if (needs_sum_v) {
      seen = RowMatrix::Zero(m_, count);
      for (Index r = 0; r < m_; ++r) {
        const RowSums& sums = sums_[static_cast<std::size_t>(r)];
        const Index from = std::clamp<Index>(sums.begin - at, 0, count);
        const Index to = std::clamp<Index>(sums.end - at, from, count);
        seen.row(r).segment(from, to - from).setOnes();
      }
      sum_v_.noalias() += seen * magnitudes;
    }
    if (propagates()) {
      const auto key_weights = key_weights_.middleCols(at, count);
      fk_v_.noalias() += key_weights * v.y;
      fk_v2_.noalias() += key_weights * squares;
    }
    if (output_spread_.size() != 0) accumulate_output(v.y, at);
    if (v.exact()) continue;
    if (exact_values_) {
      exact_values_ = false;
      linear_ = squares_ = coherent_ = variance_ = coherent_deviation_ = RowMatrix::Zero(m_, dv);
      if (!propagates()) pw_dv_ = linear_;
    }
    if (!needs_e) p2 = p.cwiseAbs2();
    linear_.noalias() += p * v.d;
    squares_.noalias() += p2 * v.d.cwiseAbs2();
    coherent_.noalias() += p * v.d.cwiseProduct(v.y.cwiseSign());
    variance_.noalias() += p2 * v.s.cwiseAbs2();
    coherent_deviation_.noalias() += p * v.s.cwiseProduct(v.y.cwiseSign());
    if (propagates()) pw_dv_.noalias() += pw_.middleCols(at, count) * v.d;
  }
}

/// B where every logit error is small.
double BlockBound::small_logit_error(Index r, Index c) const {
  const RowSums& sums = sums_[static_cast<std::size_t>(r)];
  const double o = o_(r, c), v2 = v2_(r, c);
  // sum p (v - o)^2, with the sink's share
  const double spread =
      std::max(0.0, v2 - o * o * (1.0 + sums.p_sink)) + kCancellation * (v2 + o * o);
  const double values = exact_values_ ? 0.0 : pw_dv_(r, c) / sums.denominator;
  const double rigorous = rigorous_logit_error(sums) * std::sqrt(spread) + values;
  if (!propagates()) return rigorous;
  const double keys =
      std::max(0.0, fk_v2_(r, c) - 2.0 * o * fk_v_(r, c) + o * o * sums.key_squares) +
      kCancellation * (fk_v2_(r, c) + o * o * sums.key_squares);
  const double first_order =
      (std::sqrt(sums.own_squares * spread) + std::sqrt(sums.query_squares * spread + keys)) *
          std::exp(2.0 * sums.max_ds) +
      values;
  return std::min(rigorous, first_order);
}

RowFactors BlockBound::row_factors(Index r) const {
  const RowSums& sums = sums_[static_cast<std::size_t>(r)];
  const double h = online_chain_length(sums.count, arithmetic_.block, arithmetic_.splits);
  RowFactors row{sums, h, SumBound(arithmetic_.attention_acc, sums.count, h),
                 h + kSumDeviations * std::sqrt(h) + 8.0};
  if (arithmetic_.attention_acc == Accumulator::kFloat16) {
    const std::int64_t step = arithmetic_.block > 0 ? arithmetic_.block : sums.count;
    row.half_rescales =
        4.0 * 0x1p-11 * std::ceil(static_cast<double>(sums.count) / static_cast<double>(step));
    row.half_floor = (h + 2.0) * 0x1p-25 * sums.p_max;
  }
  return row;
}

Allowance BlockBound::value_allowance(const RowFactors& row, Index r, Index c, double b,
                                      double large_a, double& s) const {
  const RowSums& sums = row.sums;
  const double o = o_(r, c), abs_o = std::abs(o);
  const double a = std::max(magnitude_(r, c), large_a);
  double e = e2_.size() != 0 ? std::sqrt(e2_(r, c)) : a;
  if (sums.large()) e = std::max(e, a);

  Allowance allowance;
  allowance.scores = b;
  allowance.sum =
      row.sum(o, a, e) + u_ * row.lerr * abs_o + row.half_rescales * a + row.half_floor + 0x1p-125;
  allowance.operand = block_.cache_error * a;
  if (arithmetic_.operand_roundoff > 0.0) {
    allowance.operand += operand_error(arithmetic_.operand_roundoff, o, a, e);
  }
  const double sum_v = sum_v_.size() != 0 ? sum_v_(r, c) : all_v_[c];
  allowance.probabilities =
      u_p_ * std::min(a, kAllowanceDeviations * e + abs_o) + eta_p_ * sums.p_max * sum_v;
  const double rest = allowance.total() - b;
  Propagated values;
  if (!exact_values_) {
    values = propagate({linear_(r, c), squares_(r, c), coherent_(r, c), variance_(r, c),
                        coherent_deviation_(r, c)});
    allowance.propagation = values.allowance;
  }
  allowance.rounding = rounding(arithmetic_.out, o, allowance.total());
  if (!options_.deviations) return allowance;
  s = std::sqrt(square(rest / 2.0) + values.variance +
                square(rounding_deviation(arithmetic_.out, o)) +
                square(u_p_) * (e * e + o * o) / 3.0);
  return allowance;
}

/// B where another key may win the row: in logarithms, key by key.
void BlockBound::finish_large_row(Index r) {
  const RowSums& sums = sums_[static_cast<std::size_t>(r)];
  const Index dv = block_.value_dim;
  const Eigen::ArrayXd o = o_.row(r).transpose().array();
  Eigen::ArrayXd b = Eigen::ArrayXd::Zero(dv), grown = b, hull = b, largest = b;
  if (sums.sink != -kInfinity) hull = o.abs();
  for (Index at = sums.begin; at < sums.end; at += kChunk) {
    const Index count = std::min<Index>(kChunk, sums.end - at);
    const Bounded v = block_.values(block_.first_key + at, count);
    for (Index j = 0; j < count; ++j) {
      const double t = t_(r, at + j), ds = ds_(r, at + j);
      if (t == -kInfinity) continue;
      const double log_p = t - sums.lse - sums.log_denominator;
      const double weight =
          ds > 1.0 ? std::exp(std::min(300.0, log_p + ds)) : std::exp(log_p) * std::expm1(ds);
      const Eigen::ArrayXd value = v.y.row(j).transpose().array();
      Eigen::ArrayXd away = (value - o).abs();
      if (!v.exact()) away += v.d.row(j).transpose().array();
      b += weight * away;
      hull = hull.max(away);
      grown += weight * value.abs();
      largest = largest.max(value.abs());
    }
  }
  b = b.min(hull);
  large_logit_squares_[r] = b.square().sum();
  const Eigen::ArrayXd a =
      (grown + magnitude_.row(r).transpose().array() * std::exp(-sums.log_denominator))
          .min(largest);
  const RowFactors row = row_factors(r);
  for (Index c = 0; c < dv; ++c) {
    double s = 0.0;
    const Allowance allowance = value_allowance(row, r, c, b[c], a[c], s);
    put(result_.out, r, c, o[c], allowance, s);
  }
}

void BlockBound::finish_row(Index r) {
  const RowSums& sums = sums_[static_cast<std::size_t>(r)];
  if (sums.count == 0) {  // sees nothing: exactly 0, and lse is the sink
    for (Index c = 0; c < block_.value_dim; ++c) put(result_.out, r, c, 0.0, {}, 0.0);
    Allowance a;
    if (sums.sink != -kInfinity) {
      a.rounding = (2.0 * u_ + unit_roundoff(arithmetic_.lse)) * std::abs(sums.sink);
    }
    put(result_.lse, r, 0, sums.sink, a, 0.0);
    return;
  }
  if (sums.large()) return finish_large_row(r);
  const RowFactors row = row_factors(r);
  for (Index c = 0; c < block_.value_dim; ++c) {
    double s = 0.0;
    const Allowance allowance = value_allowance(row, r, c, small_logit_error(r, c), 0.0, s);
    put(result_.out, r, c, o_(r, c), allowance, s);
    if (own_errors_.size() == 0) continue;
    own_errors_(r, c) = allowance.total() - allowance.scores;
    if (!exact_values_) own_errors_(r, c) += pw_dv_(r, c) / sums.denominator;
  }
}

void BlockBound::put(Bounded& out, Index r, Index c, double y, const Allowance& a, double s) const {
  out.y(r, c) = y;
  out.d(r, c) = a.total();
  out.s(r, c) = s;
  if (options_.parts) out.parts[static_cast<std::size_t>(r * out.y.cols() + c)] = a;
}

}  // namespace attn::harness
