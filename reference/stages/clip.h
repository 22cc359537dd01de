#pragma once

#include "reference/stages/matrix.h"

namespace attn::reference {

/// min(max(v, -bound), bound) of every element; NaN stays NaN. bound >= 0.
/// Used on the weights of q, k, v (config.clip_qkv) and on their results (config.clip_activations).
Matrix clip(const MatrixView& values, double bound);

}  // namespace attn::reference
