#include <nlohmann/json.hpp>

#include "reference/core/config.h"
#include "reference/core/config_names_internal.h"

namespace attn {
namespace {

using Json = nlohmann::json;

template <typename T>
Json or_null(const std::optional<T>& value) {
  return value ? Json(*value) : Json(nullptr);
}

Json scaling_json(const RopeScaling& s) {
  Json json{{"type", name_of(s.type)}};
  switch (s.type) {
    case RopeScalingType::kDefault:
    case RopeScalingType::kDynamic:
      return json;
    case RopeScalingType::kLinear:
      json["factor"] = s.factor;
      return json;
    case RopeScalingType::kLlama3:
      json["factor"] = s.factor;
      json["low_freq_factor"] = s.low_freq_factor;
      json["high_freq_factor"] = s.high_freq_factor;
      break;
    case RopeScalingType::kDeepseekYarn:
      json["mscale"] = s.mscale;
      json["mscale_all_dim"] = s.mscale_all_dim;
      [[fallthrough]];
    case RopeScalingType::kYarn:
      json["factor"] = s.factor;
      json["beta_fast"] = s.beta_fast;
      json["beta_slow"] = s.beta_slow;
      break;
    case RopeScalingType::kLongrope:
      json["short_factor"] = s.short_factor;
      json["long_factor"] = s.long_factor;
      json["max_position_embeddings"] = s.max_position_embeddings;
      json["convention"] = name_in(Names<LongropeConvention>(kConventions), s.convention);
      json["use_long"] = s.use_long;
      break;
  }
  json["original_max_position_embeddings"] = s.original_max_position_embeddings;
  return json;
}

Json rope_json(const RopeConfig& rope) {
  Json json{{"theta", rope.theta}, {"interleaved", rope.interleaved}};
  if (rope.rotary_dim) json["rotary_dim"] = *rope.rotary_dim;
  if (rope.rotary_side == RotarySide::kLast) json["rotary_side"] = "last";
  if (rope.scaling.type != RopeScalingType::kDefault) json["scaling"] = scaling_json(rope.scaling);
  return json;
}

Json mask_json(const MaskConfig& mask) {
  Json json{{"variant", name_of(mask.variant)}, {"align", name_of(mask.align)}};
  if (mask.window_size) json["window_size"] = *mask.window_size;
  if (mask.chunk_size) json["chunk_size"] = *mask.chunk_size;
  return json;
}

Json kv_cache_json(const KvCacheConfig& cache) {
  Json json{{"page_size", cache.page_size}, {"dtype", element_name(cache.dtype)}};
  json["scale_granularity"] = cache.scale_granularity == ScaleGranularity::kNone
                                  ? Json(nullptr)
                                  : Json(name_of(cache.scale_granularity));
  return json;
}

Json quant_json(const QuantConfig& q) {
  Json json{{"activation", name_of(q.activation)}};
  if (q.k_proj == q.q_proj && q.v_proj == q.q_proj && q.o_proj == q.q_proj) {
    json["encoding"] = name_of(q.q_proj);
  } else {
    json["encoding"] = {{"q_proj", name_of(q.q_proj)},
                        {"k_proj", name_of(q.k_proj)},
                        {"v_proj", name_of(q.v_proj)},
                        {"o_proj", name_of(q.o_proj)}};
  }
  if (q.q_proj == QuantEncoding::kFloat8E4M3FN) {
    json["weight_granularity"] = name_of(q.weight_granularity);
    const QuantConfig defaults;
    if (q.weight_granularity == WeightGranularity::kBlock || q.block_n != defaults.block_n ||
        q.block_k != defaults.block_k) {
      json["block"] = {q.block_n, q.block_k};
    }
  }
  if (q.q_proj == QuantEncoding::kGptq) {
    json["bits"] = q.bits;
    json["group_size"] = q.group_size;
    json["desc_act"] = q.desc_act;
    json["sym"] = q.sym;
    json["checkpoint_format"] = name_in(Names<bool>(kCheckpointFormats), q.checkpoint_v2);
  }
  return json;
}

}  // namespace

std::string to_json(const AttentionConfig& c) {
  Json json{{"variant", name_of(c.variant)},
            {"entry_point", name_of(c.entry_point)},
            {"num_attention_heads", c.num_attention_heads},
            {"num_key_value_heads", c.num_key_value_heads},
            {"head_dim", c.head_dim},
            {"dtype", element_name(c.dtype)},
            {"scale", or_null(c.scale)},
            {"mask", mask_json(c.mask)},
            {"kv_cache", kv_cache_json(c.kv_cache)},
            {"quant", c.quant ? quant_json(*c.quant) : Json(nullptr)}};
  if (c.starts_at_attention() || c.head_dim_v != c.head_dim) json["head_dim_v"] = c.head_dim_v;
  if (c.logit_softcap) json["logit_softcap"] = *c.logit_softcap;
  if (!c.starts_at_attention()) {
    json["hidden_size"] = c.hidden_size;
    json["stacked_qkv"] = c.stacked_qkv;
    json["has_bias"] = c.has_bias;
    json["clip_qkv"] = or_null(c.clip_qkv);
    if (c.clip_activations) json["clip_activations"] = *c.clip_activations;
    json["use_qk_norm"] = c.use_qk_norm;
    json["rms_norm_eps"] = c.rms_norm_eps;
    json["num_devices"] = c.num_devices;
    if (c.kv_head_replication) json["kv_head_replication"] = true;
    json["rope"] = rope_json(c.rope);
  }
  return json.dump();
}

}  // namespace attn
