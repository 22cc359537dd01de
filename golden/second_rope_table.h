#pragma once

#include "reference/core/case.h"

namespace attn::golden {

/// The rope table of the case's config as the second evaluation sees it: [positions, rotary_dim]
/// float64, (cos, sin) pairs whose angles and factors are long double, rounded once to float32.
Tensor second_rope_table(const Case& c);

}  // namespace attn::golden
