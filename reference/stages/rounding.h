#pragma once

#include "reference/core/element.h"
#include "reference/reference.h"
#include "reference/stages/matrix.h"

namespace attn::reference {

/// The one difference between the two modes. A stage writes its formula once and says `r.to(type,
/// v)` where the layer as it runs rounds v to `type`. Faithful mode rounds there (to nearest, ties
/// to even); exact mode returns v as it is.
class Rounding {
 public:
  explicit Rounding(Mode mode) : mode_(mode) {}

  bool exact() const { return mode_ == Mode::kExact; }

  double to(ElementType type, double v) const;
  Matrix to(ElementType type, Matrix v) const;

  /// a * b + c as a fused multiply-add of `type`: one rounding, of the sum.
  double fma(ElementType type, double a, double b, double c) const;

 private:
  Mode mode_;
};

}  // namespace attn::reference
