#include <array>

#include "reference/core/config.h"
#include "reference/core/config_json_reader_internal.h"
#include "reference/core/config_names_internal.h"

namespace attn {
namespace {

using Json = nlohmann::json;

RopeScaling parse_scaling(const Json& json) {
  ObjectReader in(json, "rope.scaling");
  RopeScaling s;
  s.type = parse_name(in.field("type"), in.require("type"), Names<RopeScalingType>(kScalings));
  switch (s.type) {
    case RopeScalingType::kDefault:
    case RopeScalingType::kDynamic:
      break;
    case RopeScalingType::kLinear:
      s.factor = in.require_number("factor");
      break;
    case RopeScalingType::kLlama3:
      s.factor = in.require_number("factor");
      in.read("low_freq_factor", s.low_freq_factor);
      in.read("high_freq_factor", s.high_freq_factor);
      break;
    case RopeScalingType::kDeepseekYarn:
      in.read("mscale", s.mscale);
      in.read("mscale_all_dim", s.mscale_all_dim);
      [[fallthrough]];
    case RopeScalingType::kYarn:
      s.factor = in.require_number("factor");
      in.read("beta_fast", s.beta_fast);
      in.read("beta_slow", s.beta_slow);
      break;
    case RopeScalingType::kLongrope:
      in.require("short_factor");
      in.read("short_factor", s.short_factor);
      in.require("long_factor");
      in.read("long_factor", s.long_factor);
      s.max_position_embeddings = in.require_integer("max_position_embeddings");
      in.read("convention", s.convention, kConventions);
      in.read("use_long", s.use_long);
      break;
  }
  if (s.type >= RopeScalingType::kLlama3) {
    s.original_max_position_embeddings = in.require_integer("original_max_position_embeddings");
  }
  in.finish();
  return s;
}

RopeConfig parse_rope(const Json& json) {
  ObjectReader in(json, "rope");
  RopeConfig rope;
  in.read("theta", rope.theta);
  in.read("interleaved", rope.interleaved);
  in.read("rotary_dim", rope.rotary_dim);
  in.read("rotary_side", rope.rotary_side, kRotarySides);
  if (const Json* scaling = in.find("scaling")) rope.scaling = parse_scaling(*scaling);
  in.finish();
  return rope;
}

MaskConfig parse_mask(const Json& json) {
  ObjectReader in(json, "mask");
  MaskConfig mask;
  in.read("variant", mask.variant, kMasks);
  in.read("align", mask.align, kAligns);
  in.read("window_size", mask.window_size);
  in.read("chunk_size", mask.chunk_size);
  in.finish();
  return mask;
}

KvCacheConfig parse_kv_cache(const Json& json, ElementType default_dtype) {
  ObjectReader in(json, "kv_cache");
  KvCacheConfig cache;
  cache.dtype = default_dtype;
  in.read("page_size", cache.page_size);
  in.read("dtype", cache.dtype, kElementTypes);
  in.read("scale_granularity", cache.scale_granularity, kScaleGranularities);
  in.finish();
  return cache;
}

void parse_encoding(ObjectReader& in, QuantConfig& quant) {
  const Json& encoding = in.require("encoding");
  if (!encoding.is_object()) {
    quant.q_proj = parse_name(in.field("encoding"), encoding, Names<QuantEncoding>(kEncodings));
    quant.k_proj = quant.v_proj = quant.o_proj = quant.q_proj;
    return;
  }
  ObjectReader each(encoding, "quant.encoding");
  const auto read = [&](const char* key) {
    return parse_name(each.field(key), each.require(key), kGgufEncodings);
  };
  quant.q_proj = read("q_proj");
  quant.k_proj = read("k_proj");
  quant.v_proj = read("v_proj");
  quant.o_proj = read("o_proj");
  each.finish();
}

QuantConfig parse_quant(const Json& json) {
  ObjectReader in(json, "quant");
  QuantConfig quant;
  parse_encoding(in, quant);
  in.read("activation", quant.activation, kActivations);
  if (quant.q_proj == QuantEncoding::kFloat8E4M3FN) {
    in.read("weight_granularity", quant.weight_granularity, kWeightGranularities);
    if (const Json* block = in.find("block")) {
      if (!block->is_array() || block->size() != 2) {
        refuse("quant.block", "is " + show(*block) + "; it must be [rows, columns]");
      }
      quant.block_n = parse_integer("quant.block[0]", (*block)[0]);
      quant.block_k = parse_integer("quant.block[1]", (*block)[1]);
    }
  }
  if (quant.q_proj == QuantEncoding::kGptq) {
    in.read("bits", quant.bits);
    in.read("group_size", quant.group_size);
    in.read("desc_act", quant.desc_act);
    in.read("sym", quant.sym);
    in.read("checkpoint_format", quant.checkpoint_v2, kCheckpointFormats);
  }
  in.finish();
  return quant;
}

/// Keys of the whole layer, which entry point attention does not have.
constexpr std::array<const char*, 10> kForwardKeys{
    "clip_activations", "clip_qkv",     "has_bias", "hidden_size", "kv_head_replication",
    "num_devices",      "rms_norm_eps", "rope",     "stacked_qkv", "use_qk_norm"};

void parse_layer(ObjectReader& in, AttentionConfig& c) {
  c.hidden_size = in.require_integer("hidden_size");
  in.read("stacked_qkv", c.stacked_qkv);
  in.read("has_bias", c.has_bias);
  in.read("clip_qkv", c.clip_qkv);
  in.read("clip_activations", c.clip_activations);
  in.read("use_qk_norm", c.use_qk_norm);
  in.read("rms_norm_eps", c.rms_norm_eps);
  in.read("num_devices", c.num_devices);
  in.read("kv_head_replication", c.kv_head_replication);
  if (const Json* rope = in.find("rope")) c.rope = parse_rope(*rope);
}

AttentionConfig parse_object(const Json& json) {
  ObjectReader in(json, "");
  AttentionConfig c;
  in.read("variant", c.variant, kVariants);
  if (c.variant == Variant::kAttention) c.entry_point = EntryPoint::kAttention;
  in.read("entry_point", c.entry_point, kEntryPoints);
  if (c.starts_at_attention() && in.find("variant") == nullptr) c.variant = Variant::kAttention;

  c.num_attention_heads = in.require_integer("num_attention_heads");
  c.num_key_value_heads = in.require_integer("num_key_value_heads");
  c.head_dim = in.require_integer("head_dim");
  c.head_dim_v = c.head_dim;
  in.read("head_dim_v", c.head_dim_v);
  in.read("dtype", c.dtype, kElementTypes);
  in.read("scale", c.scale);
  in.read("logit_softcap", c.logit_softcap);
  if (const Json* mask = in.find("mask")) c.mask = parse_mask(*mask);
  c.kv_cache.dtype = c.dtype;
  if (const Json* cache = in.find("kv_cache")) c.kv_cache = parse_kv_cache(*cache, c.dtype);
  if (const Json* quant = in.find("quant")) c.quant = parse_quant(*quant);

  if (c.starts_at_attention()) {
    for (const char* key : kForwardKeys) {
      if (json.contains(key)) {
        refuse(key,
               "= " + show(json[key]) +
                   " is a key of the whole layer; entry point attention "
                   "starts behind it, leave the key out",
               "14b");
      }
    }
  } else {
    parse_layer(in, c);
  }
  in.finish();
  return c;
}

}  // namespace

AttentionConfig parse_config_unchecked(std::string_view json) {
  return parse_object(parse_json(json));
}

AttentionConfig parse_config(std::string_view json) {
  AttentionConfig config = parse_config_unchecked(json);
  validate(config);
  return config;
}

}  // namespace attn
