#include "reference/stages/qk_norm.h"

#include <utility>

namespace attn::reference {

Matrix qk_norm(const AttentionConfig& config, const Tensor& gamma, Matrix x, Rounding r) {
  const std::int64_t d = config.head_dim;
  const double eps = r.to(config.dtype, config.rms_norm_eps);
  const Matrix g = r.to(config.dtype, decode_matrix(gamma, 1, d));

  auto heads = by_head(x, d);  // [rows*heads, D]
  for (auto v : heads.rowwise()) {
    const double mean_square = v.squaredNorm() / static_cast<double>(d);
    v = (v / std::sqrt(mean_square + eps)).cwiseProduct(g.row(0));
  }
  return r.to(config.dtype, std::move(x));
}

}  // namespace attn::reference
