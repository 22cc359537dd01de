#include "reference/stages/output.h"

#include "reference/stages/product.h"

namespace attn::reference {

Matrix project_output(const Case& c, const MatrixView& attn_out, Rounding r) {
  return r.to(c.config.dtype, multiply(c, Projection::kO, attn_out, r));
}

}  // namespace attn::reference
