#include "reference/core/config.h"

#include <cmath>

#include "reference/core/config_names_internal.h"

namespace attn {

double AttentionConfig::softmax_scale() const {
  return scale ? *scale : 1.0 / std::sqrt(static_cast<double>(head_dim));
}

std::optional<double> AttentionConfig::weight_clip() const {
  return clip_qkv && *clip_qkv != 0.0 ? clip_qkv : std::nullopt;
}

std::string_view name_of(Variant v) { return name_in(Names<Variant>(kVariants), v); }
std::string_view name_of(EntryPoint e) { return name_in(Names<EntryPoint>(kEntryPoints), e); }
std::string_view name_of(MaskVariant m) { return name_in(Names<MaskVariant>(kMasks), m); }
std::string_view name_of(MaskAlign a) { return name_in(Names<MaskAlign>(kAligns), a); }
std::string_view name_of(RopeScalingType t) {
  return name_in(Names<RopeScalingType>(kScalings), t);
}
std::string_view name_of(QuantEncoding e) { return name_in(Names<QuantEncoding>(kEncodings), e); }
std::string_view name_of(WeightGranularity g) {
  return name_in(Names<WeightGranularity>(kWeightGranularities), g);
}
std::string_view name_of(ActivationQuant a) {
  return name_in(Names<ActivationQuant>(kActivations), a);
}
std::string_view name_of(ScaleGranularity g) {
  return name_in(Names<ScaleGranularity>(kScaleGranularities), g);
}

}  // namespace attn
