#include "reference/stages/attention.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <optional>
#include <vector>

#include "reference/stages/mask.h"

namespace attn::reference {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// The layer's constants, as it runs: float32.
struct Constants {
  double scale;
  std::optional<double> softcap;
  Matrix sinks;  // [1, Hq], or [0, 0]
  ElementType value_type;
  ElementType out_type;
};

Constants constants_of(const Case& c, Rounding r) {
  constexpr ElementType kF32 = ElementType::kFloat32;
  Constants k;
  k.scale = r.to(kF32, c.config.softmax_scale());
  if (c.config.logit_softcap) {
    k.softcap = r.to(kF32, *c.config.logit_softcap);
  }
  if (c.has_sinks()) {
    k.sinks = decode_matrix(c.weights.at("sinks"), 1, c.config.num_attention_heads);
  }
  k.value_type = c.config.kv_cache.dtype;
  k.out_type = c.config.dtype;
  return k;
}

/// Some query rows of one sequence, and the keys that at least one of them sees.
struct RowBlock {
  std::int64_t first;          // index of its first row in q and in the result
  std::int64_t keys_at;        // index of the sequence's first key in keys and values
  std::vector<RowMask> masks;  // one per row
  std::int64_t begin, end;     // union of the masks' ranges

  std::int64_t rows() const { return static_cast<std::int64_t>(masks.size()); }
};

/// Replaces the scores of one row by e_k = exp(s_k - M) where the row sees key k and by 0
/// elsewhere, M the largest of its scores and the sink. s begins at key `begin`.
struct Normaliser {
  double lse;  // M + log(Z)
  double z;    // sum of e_k, and exp(sink - M)
};

Normaliser softmax(Eigen::Ref<Eigen::RowVectorXd> s, const RowMask& mask, std::int64_t begin,
                   double sink) {
  const std::int64_t n = mask.end - mask.begin;
  s.head(mask.begin - begin).setZero();
  s.tail(s.size() - (mask.end - begin)).setZero();
  if (n == 0) {
    return {sink, 1.0};
  }
  auto seen = s.segment(mask.begin - begin, n);
  for (std::size_t k = 0; k < mask.added.size(); ++k) {
    double& s_k = seen[static_cast<std::int64_t>(k)];
    s_k = mask.added[k] == -kInfinity ? -kInfinity : s_k + mask.added[k];
  }
  const double max = std::max(seen.maxCoeff(), sink);
  seen = seen.unaryExpr([max](double s_k) { return std::exp(s_k - max); });
  const double z = seen.sum() + std::exp(sink - max);
  return {max + std::log(z), z};
}

/// P V. Hidden keys have weight 0, but 0 * NaN is NaN: where V is not all finite each row adds up
/// the keys that it sees and no others.
Matrix weighted_values(const Matrix& p, const MatrixView& v, const RowBlock& block,
                       std::int64_t group) {
  if (v.allFinite()) {
    return p * v;
  }
  Matrix o = Matrix::Zero(p.rows(), v.cols());
  for (std::int64_t i = 0; i < p.rows(); ++i) {
    const RowMask& mask = block.masks[static_cast<std::size_t>(i / group)];
    for (std::int64_t k = mask.begin; k < mask.end; ++k) {
      if (mask.sees(k)) {
        o.row(i) += p(i, k - block.begin) * v.row(k - block.begin);
      }
    }
  }
  return o;
}

/// One kv head and its group of query heads.
void attend_group(const Constants& constants, const RowBlock& block, std::int64_t kv_head,
                  const MatrixView& q_rows, const MatrixView& k, const MatrixView& v, Rounding r,
                  AttentionResult& result) {
  const std::int64_t d = k.cols();
  const std::int64_t dv = v.cols();
  const std::int64_t group = q_rows.cols() / d;
  // Row i*group + g is query row i, head kv_head*group + g.
  Matrix q = q_rows;
  Matrix s = constants.scale * (by_head(q, d) * k.transpose());  // [rows*group, keys]
  if (constants.softcap) {
    const double cap = *constants.softcap;
    s = s.unaryExpr([cap](double x) { return cap * std::tanh(x / cap); });
  }
  Eigen::VectorXd z(s.rows());
  for (std::int64_t i = 0; i < s.rows(); ++i) {
    const std::int64_t head = kv_head * group + i % group;
    const double sink = constants.sinks.size() == 0 ? -kInfinity : constants.sinks(0, head);
    const RowMask& mask = block.masks[static_cast<std::size_t>(i / group)];
    const Normaliser normaliser = softmax(s.row(i), mask, block.begin, sink);
    z[i] = normaliser.z;
    result.lse(block.first + i / group, head) = normaliser.lse;
  }
  const Matrix p = r.to(constants.value_type, std::move(s));
  Matrix o = weighted_values(p, v, block, group);  // [rows*group, Dv]
  o = r.to(constants.out_type, z.cwiseInverse().asDiagonal() * o);
  result.out.block(block.first, kv_head * group * dv, block.rows(), group * dv) =
      Eigen::Map<Matrix>(o.data(), block.rows(), group * dv);
}

/// Cuts the rows of one sequence into blocks of a bounded number of scores, so that a block's
/// scores stay in cache and causal rows do not pay for the keys of later ones.
std::int64_t block_rows(std::int64_t keys, std::int64_t group) {
  constexpr std::int64_t kMaxScores = std::int64_t{1} << 20;
  constexpr std::int64_t kMaxRows = 64;
  return std::clamp<std::int64_t>(kMaxScores / std::max<std::int64_t>(1, keys * group), 1,
                                  kMaxRows);
}

}  // namespace

AttentionResult attend(const Case& c, const MatrixView& q, const MatrixView& keys,
                       const MatrixView& values, std::span<const std::int64_t> rows, Rounding r) {
  const AttentionConfig& config = c.config;
  const std::int64_t group = config.group_size();
  const std::int64_t d = config.head_dim;
  const std::int64_t dv = config.head_dim_v;
  const Constants constants = constants_of(c, r);
  const auto n = static_cast<std::int64_t>(rows.size());
  AttentionResult result{Matrix(n, config.num_attention_heads), Matrix(n, config.attn_width())};

  std::int64_t i = 0;  // rows[i] is the next row to do
  std::int64_t keys_at = 0;
  for (std::int64_t b = 0; b < c.batch(); keys_at += c.key_count(b), ++b) {
    const std::int64_t row_end = c.row_begin(b) + c.row_count(b);
    const std::int64_t size = block_rows(c.key_count(b), group);
    while (i < n && rows[static_cast<std::size_t>(i)] < row_end) {
      RowBlock block{i, keys_at, {}, c.key_count(b), 0};
      for (; i < n && block.rows() < size && rows[static_cast<std::size_t>(i)] < row_end; ++i) {
        block.masks.push_back(row_mask(c, b, rows[static_cast<std::size_t>(i)]));
        block.begin = std::min(block.begin, block.masks.back().begin);
        block.end = std::max(block.end, block.masks.back().end);
      }
      const std::int64_t at = keys_at + block.begin;
      const std::int64_t seen = block.end - block.begin;
      for (std::int64_t h = 0; h < config.num_key_value_heads; ++h) {
        attend_group(constants, block, h,
                     q.block(block.first, h * group * d, block.rows(), group * d),
                     keys.block(at, h * d, seen, d), values.block(at, h * dv, seen, dv), r, result);
      }
    }
  }
  result.lse = r.to(ElementType::kFloat32, std::move(result.lse));
  return result;
}

}  // namespace attn::reference
