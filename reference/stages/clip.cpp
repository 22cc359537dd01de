#include "reference/stages/clip.h"

#include <algorithm>

namespace attn::reference {

Matrix clip(const MatrixView& values, double bound) {
  return values.unaryExpr([bound](double v) { return std::clamp(v, -bound, bound); });
}

}  // namespace attn::reference
