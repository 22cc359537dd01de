#include "reference/stages/projection.h"

#include "reference/stages/clip.h"
#include "reference/stages/product.h"

namespace attn::reference {

Matrix project(const Case& c, Projection p, const MatrixView& x, Rounding r) {
  const AttentionConfig& config = c.config;
  Matrix y = r.to(config.dtype, multiply(c, p, x, r));
  if (config.has_bias) {
    const Matrix b = projection_bias(c, p);  // [1, out]
    y = r.to(config.dtype, y.rowwise() + b.row(0));
  }
  if (config.clip_activations) {
    y = clip(y, r.to(config.dtype, *config.clip_activations));
  }
  return y;
}

}  // namespace attn::reference
