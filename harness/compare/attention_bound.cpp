#include "harness/compare/attention_bound.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace attn::harness {
namespace {

using Eigen::Index;
using Row = Eigen::Map<Eigen::ArrayXd>;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
/// Keys that are loaded at a time.
constexpr std::int64_t kChunk = 1024;
/// Logit errors below this are small: exponentials are taken directly, and sums over keys of
/// |v - o| by the Cauchy-Schwarz inequality.
constexpr double kSmall = 0.25;
/// Products of values and output weights up to which the logits' error is followed through them.
constexpr double kMostOutputProducts = 0x1p33;
/// Covers the rounding of our own sums where they nearly cancel, relative to the sum's terms.
constexpr double kCancellation = 1e-14;

double square(double x) { return x * x; }

/// Relative error of a constant of the config, which all but float64 backends hold in float32.
double constant_error(const Arithmetic& arithmetic, double value) {
  if (arithmetic.store == ElementType::kFloat64 || value == 0.0) return 0.0;
  return std::abs(round_to(ElementType::kFloat32, value) / value - 1.0);
}

/// How the inputs' errors enter the logits (no taps); all matrices [M, n], unscaled.
struct ScorePropagation {
  RowMatrix linear;        ///< sum |q| dk + |k| dq + dq dk
  RowMatrix query;         ///< f_q / scale: the error of q, which all keys of the row share
  RowMatrix key;           ///< f_k / scale: each key's own error
  Eigen::ArrayXd sq_norm;  ///< [M] |sq|
  Eigen::ArrayXd sk_norm;  ///< [n] |sk|
};

/// Sums over keys of one row (row r of the block's matrices, a row and head).
struct RowSums {
  std::int64_t begin = 0, end = 0;  ///< visible range, relative to first_key
  std::int64_t count = 0;           ///< n
  double max = -kInfinity;          ///< m, with the sink
  double lse = -kInfinity;
  double sink = -kInfinity;
  double p_sink = 0.0, p_max = 0.0;
  double max_ds = 0.0;
  // max_ds < kSmall
  double weights = 0.0;         ///< sum pw
  double weight_squares = 0.0;  ///< sum pw w
  double denominator = 1.0;     ///< sum p e^-ds + p_sink
  double own_squares = 0.0;     ///< sum p (e^own - 1)^2
  double query_squares = 0.0;   ///< sum p fq^2
  double key_squares = 0.0;     ///< sum (p fk)^2
  double key_peak = 0.0;        ///< max p fk^2
  // otherwise
  double log_denominator = 0.0;
  bool nothing() const { return max == -kInfinity || count == 0; }
  bool large() const { return max_ds >= kSmall; }
};

/// What value_allowance needs of a row that does not depend on the channel.
struct RowFactors {
  const RowSums& sums;
  double h;      ///< longest chain of the online softmax
  SumBound sum;  ///< of P V
  double lerr;   ///< relative error of l, and of the division by it, over u
  double half_rescales = 0.0, half_floor = 0.0;  ///< float16 accumulators only
};

class BlockBound {
 public:
  BlockBound(const AttentionBlock& block, const BoundOptions& options)
      : block_(block),
        options_(options),
        arithmetic_(options.arithmetic),
        u_(elementary_roundoff(arithmetic_.attention_acc)),
        u_p_(unit_roundoff(arithmetic_.probabilities)),
        eta_p_(underflow_error(arithmetic_.probabilities)),
        m_(block.q.y.rows()),
        n_(block.end_key - block.first_key),
        group_(m_ / static_cast<Index>(std::max<std::size_t>(1, block.masks.size()))),
        scale_(std::abs(block.scale)),
        score_sum_(arithmetic_.attention_acc, block.q.y.cols(),
                   chain_length(block.q.y.cols(), arithmetic_.lanes)) {}

  AttentionBound run();

 private:
  void compute_scores();
  void add_score_propagation(const Bounded& k, Index at);
  void prepare_row(Index r);
  void own_score_errors(Index r, const RowSums& sums, Row t, Row own);
  Eigen::ArrayXd propagated_score_errors(Index r) const;
  void apply_cap(Row t, Row own, Eigen::ArrayXd& prop, Index r);
  void apply_mask(Index r, Row t, Row own);
  void softmax_row(Index r, const Row& t, Row own, const Eigen::ArrayXd& prop);
  Allowance lse_allowance(const RowSums& sums, double log_growth) const;
  void accumulate_values();
  void accumulate_output(const RowMatrix& v, Index at);
  double rigorous_logit_error(const RowSums& sums) const;
  double logit_deviation(const RowSums& sums) const;
  void project_errors();
  RowFactors row_factors(Index r) const;
  Allowance value_allowance(const RowFactors& row, Index r, Index c, double b, double large_a,
                            double& s) const;
  double small_logit_error(Index r, Index c) const;
  void finish_row(Index r);
  void finish_large_row(Index r);
  void put(Bounded& out, Index r, Index c, double y, const Allowance& a, double s) const;

  const reference::RowMask& mask(Index r) const {
    return block_.masks[static_cast<std::size_t>(r / group_)];
  }
  bool propagates() const { return prop_.linear.size() != 0; }

  const AttentionBlock& block_;
  const BoundOptions& options_;
  const Arithmetic& arithmetic_;
  const double u_, u_p_, eta_p_;
  const Index m_, n_, group_;
  const double scale_;
  const SumBound score_sum_;

  RowMatrix t_;   ///< logits
  RowMatrix ds_;  ///< their errors; first sum |q k|
  RowMatrix p_;   ///< probabilities
  RowMatrix score_squares_;
  ScorePropagation prop_;
  RowMatrix pw_, key_weights_;  ///< p (e^ds - 1) and (p fk)^2, no taps only
  std::vector<RowSums> sums_;

  RowMatrix o_, magnitude_, v2_, e2_, sum_v_;
  Eigen::ArrayXd all_v_;  ///< sum |v| over the block's keys, an upper bound of sum_v_
  RowMatrix pw_dv_, fk_v_, fk_v2_;
  RowMatrix output_spread_;             ///< [M, hidden] sum p (w.v)^2
  Eigen::ArrayXd large_logit_squares_;  ///< [M] sum over channels of B^2, large rows
  RowMatrix own_errors_;                ///< [M, Dv] d without what the channels of a head share
  RowMatrix linear_, squares_, coherent_, variance_, coherent_deviation_;
  bool exact_values_ = true;
  AttentionBound result_;
};

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

}  // namespace

AttentionBound attend(const AttentionBlock& block, const BoundOptions& options) {
  return BlockBound(block, options).run();
}

}  // namespace attn::harness
