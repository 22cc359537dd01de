#pragma once

#include "reference/core/case.h"
#include "reference/stages/rounding.h"

namespace attn::reference {

/// The four linear maps of a layer.
enum class Projection { kQ, kK, kV, kO };

/// The weight that projection `p` multiplies by, [out, in]: decoded, cut out of "qkv_proj.weight"
/// when the config is stacked (rows Q, K, V in this order), and clipped to +-clip_qkv (q, k, v
/// only). The bound is first rounded to the weight's type, as the clamp runs in that type.
Matrix projection_weight(const Case& c, Projection p, Rounding r);

/// The bias of q, k or v, [1, out].
Matrix projection_bias(const Case& c, Projection p);

}  // namespace attn::reference
