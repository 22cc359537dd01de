#pragma once

#include <string>

#include "reference/core/case.h"
#include "reference/stages/rounding.h"

namespace attn::reference {

/// The four linear maps of a layer.
enum class Projection { kQ, kK, kV, kO };

/// "q_proj", "k_proj", "v_proj", "o_proj".
std::string name_of(Projection p);

/// How the weight of a projection is stored; kNone without config.quant.
QuantEncoding encoding_of(const AttentionConfig& config, Projection p);

/// The weight that projection `p` multiplies by, [out, in]: decoded, cut out of "qkv_proj.weight"
/// when the config is stacked (rows Q, K, V in this order), and clipped to +-clip_qkv (q, k, v
/// only). The bound is first rounded to the weight's type, as the clamp runs in that type; on
/// float8 weights it runs on the codes. Under static float8 activations q, k and v are requantised
/// to the largest of their scales.
Matrix projection_weight(const Case& c, Projection p, Rounding r);

/// A weight as the layer multiplies it where that is not the decoded weight itself: products of
/// codes are summed, and scales multiply the sums. value = code * scale, element by element.
struct ScaledWeight {
  Matrix code;   ///< [out, in] e4m3 values; nvfp4: e2m1 value * block scale
  Matrix scale;  ///< [out, in] the scale of each element; nvfp4: weight_scale_2
};

/// float8_e4m3fn and nvfp4.
ScaledWeight scaled_weight(const Case& c, Projection p, Rounding r);

/// The bias of q, k or v, [1, out].
Matrix projection_bias(const Case& c, Projection p);

/// Tensor "NAME.suffix" of a projection, as stored.
const Tensor& projection_tensor(const Case& c, Projection p, const std::string& suffix);

/// A scalar of a projection: "weight_scale", "weight_scale_2" or "input_scale".
double scalar_weight(const Case& c, Projection p, const std::string& suffix);

/// The same where q, k and v, which run as one projection, share the largest of theirs; o_proj's
/// own.
double shared_scalar(const Case& c, Projection p, const std::string& suffix);

}  // namespace attn::reference
