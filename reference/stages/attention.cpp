#include "reference/stages/attention.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <utility>

#include "reference/stages/row_blocks.h"

namespace attn::reference {
namespace {

constexpr ElementType kF32 = ElementType::kFloat32;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// One extra logit per head, [1, Hq]; -inf, which adds exp(-inf) = 0, without sinks.
Matrix sink_logits(const Case& c) {
  const std::int64_t heads = c.config.num_attention_heads;
  return c.has_sinks() ? decode_matrix(c.weights.at("sinks"), 1, heads)
                       : Matrix::Constant(1, heads, -kInfinity);
}

/// s = softcap(scale * q K^T), [rows, keys], for q [rows, D] and k [keys, D].
Matrix scores(const AttentionConfig& config, const MatrixView& q, const MatrixView& k, Rounding r) {
  Matrix s = r.to(kF32, config.softmax_scale()) * (q * k.transpose());
  if (config.logit_softcap) {
    const double cap = r.to(kF32, *config.logit_softcap);
    s = s.unaryExpr([cap](double x) { return cap * std::tanh(x / cap); });
  }
  return s;
}

/// Z = exp(sink - M) + sum_k exp(s_k - M), and log of the same without the shift by M.
struct Normaliser {
  double z;
  double lse;
};

/// Replaces the scores s of one row by exp(s_k + mask_k - M) for the keys that the row sees, and by
/// 0 for the others. M, the largest of the logits, keeps the exponentials at or below 1.
Normaliser exponentiate(Eigen::Ref<Eigen::RowVectorXd> s, const RowMask& mask, double sink) {
  s.head(mask.begin).setZero();
  s.tail(s.size() - mask.end).setZero();
  if (mask.begin == mask.end) {
    return {1.0, sink};
  }
  auto seen = s.segment(mask.begin, mask.end - mask.begin);
  for (std::size_t k = 0; k < mask.added.size(); ++k) {
    double& s_k = seen[static_cast<std::int64_t>(k)];
    s_k = mask.added[k] == -kInfinity ? -kInfinity : s_k + mask.added[k];
  }
  const double max = std::max(seen.maxCoeff(), sink);
  // std::exp: Eigen's own is no faster here, and its exp(-inf) is not 0.
  seen = seen.unaryExpr([max](double s_k) { return std::exp(s_k - max); });
  const double z = seen.sum() + std::exp(sink - max);
  return {z, max + std::log(z)};
}

/// The type that V is multiplied in: the cache's; float8 values are decoded to config.dtype first.
ElementType probability_type(const AttentionConfig& config) {
  const ElementType cache = config.kv_cache.dtype;
  return cache == ElementType::kFloat8E4M3FN ? config.dtype : cache;
}

/// p V, [rows, Dv], for p [rows, keys] and v [keys, Dv]. A hidden key has weight 0, but 0 * NaN is
/// NaN: where V is not all finite, each row adds up just the keys that it sees. Row i has mask i /
/// group.
Matrix weighted_values(const MatrixView& p, const MatrixView& v, std::span<const RowMask> masks,
                       std::int64_t group) {
  if (v.allFinite()) {
    return p * v;
  }
  Matrix o = Matrix::Zero(p.rows(), v.cols());
  for (std::int64_t i = 0; i < p.rows(); ++i) {
    const RowMask& mask = masks[static_cast<std::size_t>(i / group)];
    for (std::int64_t k = mask.begin; k < mask.end; ++k) {
      if (mask.sees(k)) {
        o.row(i) += p(i, k) * v.row(k);
      }
    }
  }
  return o;
}

/// One kv head, k [keys, D] and v [keys, Dv], and the query heads that share it: row i of q [rows,
/// D] is query row i / group, and query head i % group of the group, whose sinks are sinks [1,
/// group].
AttentionResult attend_group(const AttentionConfig& config, const MatrixView& q,
                             const MatrixView& k, const MatrixView& v,
                             std::span<const RowMask> masks, const MatrixView& sinks, Rounding r) {
  const std::int64_t group = sinks.cols();
  Matrix s = scores(config, q, k, r);
  Eigen::VectorXd z(s.rows());
  Matrix lse(s.rows(), 1);
  for (std::int64_t i = 0; i < s.rows(); ++i) {
    const RowMask& mask = masks[static_cast<std::size_t>(i / group)];
    const Normaliser normaliser = exponentiate(s.row(i), mask, sinks(0, i % group));
    z[i] = normaliser.z;
    lse(i, 0) = normaliser.lse;
  }
  const Matrix p = r.to(probability_type(config), std::move(s));
  Matrix o = z.cwiseInverse().asDiagonal() * weighted_values(p, v, masks, group);
  return {r.to(kF32, std::move(lse)), r.to(config.dtype, std::move(o))};
}

}  // namespace

AttentionResult attend(const Case& c, const MatrixView& q, const MatrixView& keys,
                       const MatrixView& values, std::span<const std::int64_t> rows, Rounding r) {
  const AttentionConfig& config = c.config;
  const std::int64_t group = config.group_size();
  const std::int64_t d = config.head_dim;
  const std::int64_t dv = config.head_dim_v;
  const Matrix sinks = sink_logits(c);
  AttentionResult all{Matrix(q.rows(), config.num_attention_heads),
                      Matrix(q.rows(), config.attn_width())};

  for (const RowBlock& block : row_blocks(c, rows)) {
    const std::int64_t n = block.num_rows();
    for (std::int64_t h = 0; h < config.num_key_value_heads; ++h) {
      Matrix q_heads = q.block(block.first, h * group * d, n, group * d);
      AttentionResult part = attend_group(config, by_head(q_heads, d),
                                          keys.block(block.first_key, h * d, block.num_keys, d),
                                          values.block(block.first_key, h * dv, block.num_keys, dv),
                                          block.masks, sinks.middleCols(h * group, group), r);
      all.lse.block(block.first, h * group, n, group) =
          Eigen::Map<Matrix>(part.lse.data(), n, group);
      all.out.block(block.first, h * group * dv, n, group * dv) =
          Eigen::Map<Matrix>(part.out.data(), n, group * dv);
    }
  }
  return all;
}

}  // namespace attn::reference
