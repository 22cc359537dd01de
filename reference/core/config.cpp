#include "reference/core/config.h"

#include <cmath>

namespace attn {

double AttentionConfig::softmax_scale() const {
  return scale ? *scale : 1.0 / std::sqrt(static_cast<double>(head_dim));
}

std::optional<double> AttentionConfig::weight_clip() const {
  return clip_qkv && *clip_qkv != 0.0 ? clip_qkv : std::nullopt;
}

}  // namespace attn
