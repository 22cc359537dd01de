#include "harness/generate/feature_axes.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <vector>

#include "reference/core/element.h"

namespace attn::harness {
namespace {

using Value = std::optional<std::string>;

std::string shortest(double value) {
  char text[32];
  return {text, std::to_chars(text, text + sizeof text, value).ptr};
}

Value when(bool differs, std::string value = "") {
  return differs ? Value(std::move(value)) : std::nullopt;
}

Value number(const std::optional<double>& value) {
  return value ? Value(shortest(*value)) : std::nullopt;
}

bool is_layer(const CaseSpec& spec) { return !spec.config.starts_at_attention(); }

/// GGUF and GPTQ layers are quantised by definition: their weights say it.
bool is_of_weights(Variant variant) {
  return variant == Variant::kGguf || variant == Variant::kGptq;
}

Value variant_of(const CaseSpec& spec) {
  const Variant variant = spec.config.variant;
  const bool plain = variant == Variant::kAttentionWithRope || variant == Variant::kAttention ||
                     is_of_weights(variant);
  return when(!plain, std::string(name_of(variant)));
}

void reset_variant(CaseSpec& spec) {
  AttentionConfig& config = spec.config;
  if (config.starts_at_attention()) return;
  if (config.variant == Variant::kNoOpaque) config.stacked_qkv = false;  // it is always stacked
  config.variant = Variant::kAttentionWithRope;
  config.num_devices = 1;
  config.kv_head_replication = false;
}

/// As many kv heads as devices, where that deals the query heads as before.
void reset_replication(CaseSpec& spec) {
  AttentionConfig& config = spec.config;
  config.kv_head_replication = false;
  const std::int64_t devices = config.num_devices;
  if (devices > config.num_key_value_heads && config.num_attention_heads % devices == 0) {
    config.num_key_value_heads = devices;
  }
}

Value weights_of(const CaseSpec& spec) {
  if (!spec.config.quant) return std::nullopt;
  const QuantConfig& quant = *spec.config.quant;
  std::string text(name_of(quant.q_proj));
  for (const QuantEncoding other : {quant.k_proj, quant.v_proj, quant.o_proj}) {
    const std::string name(name_of(other));
    if (text.find(name) == std::string::npos) text += " and " + name;
  }
  if (quant.weight_granularity != WeightGranularity::kTensor) {
    text.append(" by ").append(name_of(quant.weight_granularity));
  }
  return text;
}

void reset_weights(CaseSpec& spec) {
  spec.config.quant.reset();
  if (is_of_weights(spec.config.variant)) spec.config.variant = Variant::kAttentionWithRope;
}

Value cache_of(const CaseSpec& spec) {
  const KvCacheConfig& cache = spec.config.kv_cache;
  std::string kind(element_name(cache.dtype));
  const bool scaled = cache.scale_granularity != ScaleGranularity::kNone;
  if (scaled) kind.append(", a scale per ").append(name_of(cache.scale_granularity));
  return when(scaled || cache.dtype != spec.config.dtype, kind);
}

void reset_cache(CaseSpec& spec) {
  spec.config.kv_cache.dtype = spec.config.dtype;
  spec.config.kv_cache.scale_granularity = ScaleGranularity::kNone;
}

void reset_dtype(CaseSpec& spec) {
  AttentionConfig& config = spec.config;
  if (config.kv_cache.dtype == config.dtype) config.kv_cache.dtype = ElementType::kFloat32;
  config.dtype = ElementType::kFloat32;
}

Value mask_of(const CaseSpec& spec) {
  const MaskConfig& mask = spec.config.mask;
  std::string name(name_of(mask.variant));
  if (mask.window_size) name.append(" ").append(std::to_string(*mask.window_size));
  if (mask.chunk_size) name.append(" ").append(std::to_string(*mask.chunk_size));
  return when(mask.variant != MaskVariant::kNull, name);
}

Value rotary_of(const CaseSpec& spec) {
  const RopeConfig& rope = spec.config.rope;
  if (!is_layer(spec) || !rope.rotary_dim) return std::nullopt;
  const bool last = rope.rotary_side != RotarySide::kFirst;
  return (last ? "last " : "first ") + std::to_string(spec.config.rotary_dim());
}

template <auto field>
bool layout_differs(const CaseSpec& spec) {
  return spec.layout.*field != MemoryLayout().*field;
}
template <auto field>
void reset_layout(CaseSpec& spec) {
  spec.layout.*field = MemoryLayout().*field;
}
template <auto field>
Value layout_number(const CaseSpec& spec) {
  return when(layout_differs<field>(spec), std::to_string(spec.layout.*field));
}

using Spec = const CaseSpec&;

constexpr std::array kAxes = {
    FeatureAxis{"variant", variant_of, reset_variant},
    FeatureAxis{"kv_head_replication", [](Spec s) { return when(s.config.kv_head_replication); },
                reset_replication},
    FeatureAxis{"dtype",
                [](Spec s) {
                  return when(s.config.dtype != ElementType::kFloat32,
                              std::string(element_name(s.config.dtype)));
                },
                reset_dtype},
    FeatureAxis{"weights", weights_of, reset_weights},
    FeatureAxis{"activations",
                [](Spec s) {
                  const bool differs =
                      s.config.quant && s.config.quant->activation != ActivationQuant::kNone;
                  return differs ? Value(name_of(s.config.quant->activation)) : std::nullopt;
                },
                [](CaseSpec& s) { s.config.quant->activation = ActivationQuant::kNone; }},
    FeatureAxis{"desc_act", [](Spec s) { return when(s.config.quant && s.config.quant->desc_act); },
                [](CaseSpec& s) { s.config.quant->desc_act = false; }},
    FeatureAxis{"cache", cache_of, reset_cache},
    FeatureAxis{"mask", mask_of,
                [](CaseSpec& s) {
                  const MaskAlign align = s.config.mask.align;
                  s.config.mask = {};
                  s.config.mask.variant = MaskVariant::kNull;
                  s.config.mask.align = align;
                }},
    FeatureAxis{"align",
                [](Spec s) {
                  return when(s.config.mask.align != MaskAlign::kBottomRight,
                              std::string(name_of(s.config.mask.align)));
                },
                [](CaseSpec& s) { s.config.mask.align = MaskAlign::kBottomRight; }},
    FeatureAxis{"scale", [](Spec s) { return number(s.config.scale); },
                [](CaseSpec& s) { s.config.scale.reset(); }},
    FeatureAxis{"logit_softcap", [](Spec s) { return number(s.config.logit_softcap); },
                [](CaseSpec& s) { s.config.logit_softcap.reset(); }},
    FeatureAxis{"sinks", [](Spec s) { return when(s.sinks); },
                [](CaseSpec& s) { s.sinks = false; }},
    FeatureAxis{
        "stacked_qkv",
        [](Spec s) { return when(s.config.stacked_qkv && s.config.variant != Variant::kNoOpaque); },
        [](CaseSpec& s) { s.config.stacked_qkv = false; }},
    FeatureAxis{"has_bias", [](Spec s) { return when(s.config.has_bias); },
                [](CaseSpec& s) { s.config.has_bias = false; }},
    FeatureAxis{"clip_qkv", [](Spec s) { return number(s.config.clip_qkv); },
                [](CaseSpec& s) { s.config.clip_qkv.reset(); }},
    FeatureAxis{"clip_activations", [](Spec s) { return number(s.config.clip_activations); },
                [](CaseSpec& s) { s.config.clip_activations.reset(); }},
    FeatureAxis{"use_qk_norm", [](Spec s) { return when(s.config.use_qk_norm); },
                [](CaseSpec& s) {
                  s.config.use_qk_norm = false;
                  s.config.rms_norm_eps = AttentionConfig().rms_norm_eps;
                }},
    FeatureAxis{"rms_norm_eps",
                [](Spec s) {
                  const bool differs = s.config.use_qk_norm &&
                                       s.config.rms_norm_eps != AttentionConfig().rms_norm_eps;
                  return when(differs, shortest(s.config.rms_norm_eps));
                },
                [](CaseSpec& s) { s.config.rms_norm_eps = AttentionConfig().rms_norm_eps; }},
    FeatureAxis{"rope",
                [](Spec s) { return when(is_layer(s) && !s.config.rope.interleaved, "halves"); },
                [](CaseSpec& s) { s.config.rope.interleaved = true; }},
    FeatureAxis{"rotary_dim", rotary_of,
                [](CaseSpec& s) {
                  s.config.rope.rotary_dim.reset();
                  s.config.rope.rotary_side = RotarySide::kFirst;
                }},
    FeatureAxis{"theta",
                [](Spec s) {
                  return when(is_layer(s) && s.config.rope.theta != RopeConfig().theta,
                              shortest(s.config.rope.theta));
                },
                [](CaseSpec& s) { s.config.rope.theta = RopeConfig().theta; }},
    FeatureAxis{"rope scaling",
                [](Spec s) {
                  const RopeScalingType type = s.config.rope.scaling.type;
                  return when(is_layer(s) && type != RopeScalingType::kDefault,
                              std::string(name_of(type)));
                },
                [](CaseSpec& s) { s.config.rope.scaling = {}; }},
    FeatureAxis{"pages",
                [](Spec s) {
                  return when(s.pages != PageOrder::kIdentity,
                              s.pages == PageOrder::kTop ? "top of the pool" : "shuffled");
                },
                [](CaseSpec& s) { s.pages = PageOrder::kIdentity; }},
    FeatureAxis{"layers", [](Spec s) { return when(s.layers > 1, std::to_string(s.layers)); },
                [](CaseSpec& s) { s.layers = 1; }},
    FeatureAxis{"profile", [](Spec s) { return when(s.profile != "normal", s.profile); },
                [](CaseSpec& s) { s.profile = "normal"; }},
    FeatureAxis{"cache layout",
                [](Spec s) { return when(layout_differs<&MemoryLayout::cache>(s), "hnd"); },
                reset_layout<&MemoryLayout::cache>},
    FeatureAxis{"kv layout",
                [](Spec s) {
                  return when(layout_differs<&MemoryLayout::kv>(s), "k and v in one allocation");
                },
                reset_layout<&MemoryLayout::kv>},
    FeatureAxis{"q layout",
                [](Spec s) { return when(layout_differs<&MemoryLayout::q>(s), "a view"); },
                reset_layout<&MemoryLayout::q>},
    FeatureAxis{"output layout",
                [](Spec s) { return when(layout_differs<&MemoryLayout::out>(s), "transposed"); },
                reset_layout<&MemoryLayout::out>},
    FeatureAxis{"broadcast",
                [](Spec s) { return when(layout_differs<&MemoryLayout::broadcast>(s)); },
                reset_layout<&MemoryLayout::broadcast>},
    FeatureAxis{"gap", layout_number<&MemoryLayout::gap>, reset_layout<&MemoryLayout::gap>},
    FeatureAxis{"channel_stride", layout_number<&MemoryLayout::channel_stride>,
                reset_layout<&MemoryLayout::channel_stride>},
    FeatureAxis{"offset", layout_number<&MemoryLayout::offset>,
                reset_layout<&MemoryLayout::offset>},
    FeatureAxis{"row_stride", layout_number<&MemoryLayout::row_stride>,
                reset_layout<&MemoryLayout::row_stride>},
    FeatureAxis{"pool_offset", layout_number<&MemoryLayout::pool_offset>,
                reset_layout<&MemoryLayout::pool_offset>},
};

}  // namespace

std::span<const FeatureAxis> feature_axes() { return kAxes; }

void settle(CaseSpec& spec) {
  AttentionConfig& config = spec.config;
  if (!config.starts_at_attention()) config.head_dim_v = config.head_dim;
  if (config.rope.rotary_dim && *config.rope.rotary_dim >= config.head_dim) {
    config.rope.rotary_dim.reset();
    config.rope.rotary_side = RotarySide::kFirst;
  }
  RopeScaling& scaling = config.rope.scaling;
  const auto pairs = static_cast<std::size_t>(std::max<std::int64_t>(config.rotary_dim() / 2, 0));
  for (std::vector<double>* list : {&scaling.short_factor, &scaling.long_factor}) {
    if (list->size() > pairs) list->resize(pairs);
  }
  const bool deals_heads = config.variant == Variant::kTensorParallel;
  if (deals_heads && !config.kv_head_replication) {
    config.num_devices = std::min(config.num_devices, config.num_key_value_heads);
  }
  spec.layer = std::min(spec.layer, spec.layers - 1);
}

}  // namespace attn::harness
