#include <array>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "reference/core/config.h"
#include "reference/core/config_names_internal.h"
#include "reference/core/error.h"

namespace attn {
namespace {

using Json = nlohmann::json;

/// A value as it may appear in a one-line message.
std::string show(const Json& value) {
  constexpr std::size_t kLongest = 60;
  if (value.is_structured()) return value.is_array() ? "an array" : "an object";
  std::string text = value.dump();
  if (text.size() > kLongest) text = text.substr(0, kLongest) + "...";
  return text;
}

[[noreturn]] void refuse(const std::string& field, const std::string& problem,
                         const std::string& rule = "") {
  throw Error(ErrorKind::kConfig, "config: " + field + " " + problem, field, rule);
}

template <typename E>
E parse_name(const std::string& field, const Json& value, Names<E> names) {
  if (!value.is_string()) {
    refuse(field,
           "is " + show(value) + "; it must be a string, one of its known names" +
               hint("", words(names)),
           "13");
  }
  const std::string& word = value.get_ref<const std::string&>();
  for (const auto& [name, known] : names) {
    if (name == word) return known;
  }
  refuse(field, "is " + show(value) + ", an unknown name" + hint(word, words(names)), "13");
}

// ---- Reading one object.

/// Hands out the members of one JSON object, checks their types and remembers which keys exist, so
/// that finish() can refuse the others. An absent or null member leaves the default.
class ObjectReader {
 public:
  ObjectReader(const Json& object, std::string path) : object_(object), path_(std::move(path)) {
    if (!object.is_object()) {
      refuse(path_.empty() ? "the text" : path_,
             "is " + show(object) + "; it must be a JSON object");
    }
  }

  std::string field(std::string_view key) const {
    return path_.empty() ? std::string(key) : path_ + "." + std::string(key);
  }

  const Json* find(const char* key) {
    known_.emplace_back(key);
    const auto it = object_.find(key);
    return it == object_.end() || it->is_null() ? nullptr : &*it;
  }

  const Json& require(const char* key) {
    if (const Json* value = find(key)) return *value;
    refuse(field(key), "is missing; it has no default, give it a value");
  }

  void read(const char* key, std::int64_t& target) {
    if (const Json* value = find(key)) target = integer(field(key), *value);
  }
  void read(const char* key, std::optional<std::int64_t>& target) {
    if (const Json* value = find(key)) target = integer(field(key), *value);
  }
  void read(const char* key, double& target) {
    if (const Json* value = find(key)) target = number(field(key), *value);
  }
  void read(const char* key, std::optional<double>& target) {
    if (const Json* value = find(key)) target = number(field(key), *value);
  }
  void read(const char* key, bool& target) {
    const Json* value = find(key);
    if (value == nullptr) return;
    if (!value->is_boolean())
      refuse(field(key), "is " + show(*value) + "; it must be true or false");
    target = value->get<bool>();
  }
  void read(const char* key, ElementType& target) {
    const Json* value = find(key);
    if (value == nullptr) return;
    if (!value->is_string()) refuse(field(key), "is " + show(*value) + "; it must be a string");
    try {
      target = parse_element_type(value->get_ref<const std::string&>());
    } catch (const Error& error) {
      refuse(field(key), std::string("is unknown: ") + error.what(), "13");
    }
  }
  void read(const char* key, std::vector<double>& target) {
    const Json* value = find(key);
    if (value == nullptr) return;
    if (!value->is_array())
      refuse(field(key), "is " + show(*value) + "; it must be an array of numbers");
    target.clear();
    for (const Json& element : *value) target.push_back(number(field(key) + "[]", element));
  }
  template <typename E>
  void read(const char* key, E& target, Names<std::type_identity_t<E>> names) {
    if (const Json* value = find(key)) target = parse_name(field(key), *value, names);
  }

  /// Refuses every key that nothing asked for.
  void finish() const {
    for (const auto& item : object_.items()) {
      bool known = false;
      for (const std::string& key : known_) known = known || key == item.key();
      if (!known) {
        refuse(field(item.key()),
               "= " + show(item.value()) + " is an unknown key" + hint(item.key(), known_), "13");
      }
    }
  }

  static std::int64_t integer(const std::string& field, const Json& value) {
    if (!value.is_number_integer() ||
        (value.is_number_unsigned() &&
         value.get<std::uint64_t>() > std::numeric_limits<std::int64_t>::max())) {
      refuse(field, "is " + show(value) +
                        "; it must be an integer below 2^63, written without a "
                        "fraction or exponent");
    }
    return value.get<std::int64_t>();
  }
  static double number(const std::string& field, const Json& value) {
    if (!value.is_number()) refuse(field, "is " + show(value) + "; it must be a number");
    return value.get<double>();
  }

 private:
  const Json& object_;
  std::string path_;
  std::vector<std::string> known_;
};

// ---- The parts of a config.

RopeScaling parse_scaling(const Json& json) {
  ObjectReader in(json, "rope.scaling");
  RopeScaling s;
  s.type = parse_name(in.field("type"), in.require("type"), Names<RopeScalingType>(kScalings));
  switch (s.type) {
    case RopeScalingType::kDefault:
    case RopeScalingType::kDynamic:
      break;
    case RopeScalingType::kLinear:
      s.factor = ObjectReader::number(in.field("factor"), in.require("factor"));
      break;
    case RopeScalingType::kLlama3:
      s.factor = ObjectReader::number(in.field("factor"), in.require("factor"));
      in.read("low_freq_factor", s.low_freq_factor);
      in.read("high_freq_factor", s.high_freq_factor);
      break;
    case RopeScalingType::kDeepseekYarn:
      in.read("mscale", s.mscale);
      in.read("mscale_all_dim", s.mscale_all_dim);
      [[fallthrough]];
    case RopeScalingType::kYarn:
      s.factor = ObjectReader::number(in.field("factor"), in.require("factor"));
      in.read("beta_fast", s.beta_fast);
      in.read("beta_slow", s.beta_slow);
      break;
    case RopeScalingType::kLongrope:
      in.require("short_factor");
      in.read("short_factor", s.short_factor);
      in.require("long_factor");
      in.read("long_factor", s.long_factor);
      s.max_position_embeddings = ObjectReader::integer(in.field("max_position_embeddings"),
                                                        in.require("max_position_embeddings"));
      in.read("convention", s.convention, kConventions);
      in.read("use_long", s.use_long);
      break;
  }
  if (s.type >= RopeScalingType::kLlama3) {
    s.original_max_position_embeddings =
        ObjectReader::integer(in.field("original_max_position_embeddings"),
                              in.require("original_max_position_embeddings"));
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
  in.read("dtype", cache.dtype);
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
      quant.block_n = ObjectReader::integer("quant.block[0]", (*block)[0]);
      quant.block_k = ObjectReader::integer("quant.block[1]", (*block)[1]);
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
  c.hidden_size = ObjectReader::integer("hidden_size", in.require("hidden_size"));
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

  c.num_attention_heads =
      ObjectReader::integer("num_attention_heads", in.require("num_attention_heads"));
  c.num_key_value_heads =
      ObjectReader::integer("num_key_value_heads", in.require("num_key_value_heads"));
  c.head_dim = ObjectReader::integer("head_dim", in.require("head_dim"));
  c.head_dim_v = c.head_dim;
  in.read("head_dim_v", c.head_dim_v);
  in.read("dtype", c.dtype);
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

/// Parses text, refusing what a JSON library lets pass: repeated keys, deep nesting.
Json parse_text(std::string_view text) {
  constexpr int kDeepest = 16;
  constexpr std::size_t kLongest = std::size_t{1} << 20;
  if (text.size() > kLongest) {
    refuse("the text", "has " + std::to_string(text.size()) + " bytes; at most 1 MiB is read");
  }
  std::vector<std::set<std::string>> keys;
  const Json::parser_callback_t check = [&](int depth, Json::parse_event_t event, Json& parsed) {
    if (depth > kDeepest) refuse("the text", "is nested more than 16 deep; a config needs 3");
    if (event == Json::parse_event_t::object_start) keys.emplace_back();
    if (event == Json::parse_event_t::object_end) keys.pop_back();
    if (event == Json::parse_event_t::key &&
        !keys.back().insert(parsed.get<std::string>()).second) {
      refuse(parsed.get<std::string>(), "is given twice; keep one of the two");
    }
    return true;
  };
  try {
    return Json::parse(text.begin(), text.end(), check);
  } catch (const Json::exception& error) {
    std::string reason = error.what();
    for (char& c : reason) {
      if (static_cast<unsigned char>(c) < ' ' || static_cast<unsigned char>(c) > '~') c = '?';
    }
    if (reason.size() > 200) reason = reason.substr(0, 200) + "...";
    refuse("the text", "is not valid JSON: " + reason);
  }
}

}  // namespace

AttentionConfig parse_config_unchecked(std::string_view json) {
  return parse_object(parse_text(json));
}

AttentionConfig parse_config(std::string_view json) {
  AttentionConfig config = parse_config_unchecked(json);
  validate(config);
  return config;
}

}  // namespace attn
