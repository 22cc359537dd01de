#include <array>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <span>
#include <utility>

#include "reference/core/config.h"
#include "reference/core/error.h"

namespace attn {
namespace {

using Json = nlohmann::json;

// ---- Names of the enumerations: one table each, read in both directions.

template <typename E>
using Names = std::span<const std::pair<std::string_view, E>>;

template <typename E, std::size_t N>
using NameTable = std::array<std::pair<std::string_view, E>, N>;

constexpr NameTable<Variant, 7> kVariants{{
    {"attention_with_rope", Variant::kAttentionWithRope},
    {"no_opaque", Variant::kNoOpaque},
    {"gguf", Variant::kGguf},
    {"gptq", Variant::kGptq},
    {"tensor_parallel", Variant::kTensorParallel},
    {"data_parallel", Variant::kDataParallel},
    {"attention", Variant::kAttention},
}};
constexpr NameTable<EntryPoint, 3> kEntryPoints{{
    {"forward", EntryPoint::kForward},
    {"materialize_kv_from_hidden", EntryPoint::kMaterializeKvFromHidden},
    {"attention", EntryPoint::kAttention},
}};
constexpr NameTable<MaskVariant, 6> kMasks{{
    {"null", MaskVariant::kNull},
    {"causal", MaskVariant::kCausal},
    {"chunked_causal", MaskVariant::kChunkedCausal},
    {"sliding_window_causal", MaskVariant::kSlidingWindowCausal},
    {"sliding_window_noncausal", MaskVariant::kSlidingWindowNoncausal},
    {"tensor", MaskVariant::kTensor},
}};
constexpr NameTable<MaskAlign, 2> kAligns{{
    {"bottom_right", MaskAlign::kBottomRight},
    {"top_left", MaskAlign::kTopLeft},
}};
constexpr NameTable<RopeScalingType, 7> kScalings{{
    {"default", RopeScalingType::kDefault},
    {"linear", RopeScalingType::kLinear},
    {"dynamic", RopeScalingType::kDynamic},
    {"llama3", RopeScalingType::kLlama3},
    {"yarn", RopeScalingType::kYarn},
    {"deepseek_yarn", RopeScalingType::kDeepseekYarn},
    {"longrope", RopeScalingType::kLongrope},
}};
constexpr NameTable<LongropeConvention, 2> kConventions{{
    {"transformers", LongropeConvention::kTransformers},
    {"max", LongropeConvention::kMax},
}};
constexpr NameTable<RotarySide, 2> kRotarySides{{
    {"first", RotarySide::kFirst},
    {"last", RotarySide::kLast},
}};
constexpr NameTable<ScaleGranularity, 3> kScaleGranularities{{
    {"tensor", ScaleGranularity::kTensor},
    {"head", ScaleGranularity::kHead},
    {"token_head", ScaleGranularity::kTokenHead},
}};
constexpr NameTable<QuantEncoding, 10> kEncodings{{
    {"float8_e4m3fn", QuantEncoding::kFloat8E4M3FN},
    {"nvfp4", QuantEncoding::kNvfp4},
    {"mxfp4", QuantEncoding::kMxfp4},
    {"mxfp8", QuantEncoding::kMxfp8},
    {"gptq", QuantEncoding::kGptq},
    {"q4_0", QuantEncoding::kQ4_0},
    {"q8_0", QuantEncoding::kQ8_0},
    {"q4_k", QuantEncoding::kQ4_K},
    {"q5_k", QuantEncoding::kQ5_K},
    {"q6_k", QuantEncoding::kQ6_K},
}};
/// The encodings that may differ between the projections.
const Names<QuantEncoding> kGgufEncodings = std::span(kEncodings).subspan(5);
constexpr NameTable<WeightGranularity, 3> kWeightGranularities{{
    {"tensor", WeightGranularity::kTensor},
    {"rowwise", WeightGranularity::kRowwise},
    {"block", WeightGranularity::kBlock},
}};
constexpr NameTable<ActivationQuant, 5> kActivations{{
    {"none", ActivationQuant::kNone},
    {"static", ActivationQuant::kStatic},
    {"token", ActivationQuant::kToken},
    {"block", ActivationQuant::kBlock},
    {"int8", ActivationQuant::kInt8},
}};
constexpr NameTable<bool, 2> kCheckpointFormats{{{"gptq", false}, {"gptq_v2", true}}};

template <typename E>
std::string_view name_in(Names<E> names, E value) {
  for (const auto& [name, known] : names) {
    if (known == value) return name;
  }
  return "none";
}

template <typename E>
std::vector<std::string> words(Names<E> names) {
  std::vector<std::string> list;
  for (const auto& entry : names) list.emplace_back(entry.first);
  return list;
}

// ---- Errors.

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

// ---- Writing.

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
    if (q.weight_granularity == WeightGranularity::kBlock) json["block"] = {q.block_n, q.block_k};
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

AttentionConfig parse_config_unchecked(std::string_view json) {
  return parse_object(parse_text(json));
}

AttentionConfig parse_config(std::string_view json) {
  AttentionConfig config = parse_config_unchecked(json);
  validate(config);
  return config;
}

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
