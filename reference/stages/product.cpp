#include "reference/stages/product.h"

#include "reference/stages/projection_input.h"

namespace attn::reference {

Matrix multiply(const Case& c, Projection p, const MatrixView& x, Rounding r) {
  return projection_input(c, p, x, r).value() * projection_weight(c, p, r).transpose();
}

}  // namespace attn::reference
