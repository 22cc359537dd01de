#pragma once

// Internal to attention_*.cpp: the bound of one block of query rows, in the order of its
// evaluation.

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "harness/compare/attention_bound.h"

namespace attn::harness {

using Eigen::Index;
using Row = Eigen::Map<Eigen::ArrayXd>;

inline constexpr double kInfinity = std::numeric_limits<double>::infinity();
/// Keys that are loaded at a time.
constexpr std::int64_t kChunk = 1024;
/// Logit errors below this are small: exponentials are taken directly, and sums over keys of
/// |v - o| by the Cauchy-Schwarz inequality.
inline constexpr double kSmall = 0.25;
/// Products of values and output weights up to which the logits' error is followed through them.
inline constexpr double kMostOutputProducts = 0x1p33;
/// Covers the rounding of our own sums where they nearly cancel, relative to the sum's terms.
inline constexpr double kCancellation = 1e-14;

inline double square(double x) { return x * x; }

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

/// q [rows, D] as Arithmetic::e4m3_queries says. Of q that is off by some error the result is off
/// by that and a rounding of its own.
Bounded round_queries(const Bounded& q);
/// Has `bound`, of unrounded queries, hold `rounded`'s answers too.
void allow_either(const AttentionBlock& block, const AttentionBound& rounded,
                  AttentionBound& bound);

class BlockBound {
 public:
  BlockBound(const AttentionBlock& block, const BoundOptions& options)
      : block_(block),
        options_(options),
        arithmetic_(options.arithmetic),
        u_(elementary_roundoff(arithmetic_.attention_acc)),
        u_p_(unit_roundoff(arithmetic_.probabilities)),
        eta_p_(underflow_error(arithmetic_.probabilities) / arithmetic_.probability_scale),
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

}  // namespace attn::harness
