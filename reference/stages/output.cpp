#include "reference/stages/output.h"

#include "reference/stages/weights.h"

namespace attn::reference {

Matrix project_output(const Case& c, const MatrixView& attn_out, Rounding r) {
  const Matrix w = projection_weight(c, Projection::kO, r);  // [hidden, Hq*D]
  return r.to(c.config.dtype, attn_out * w.transpose());
}

}  // namespace attn::reference
