#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <initializer_list>
#include <type_traits>
#include <utility>

#include "reference/core/quant_internal.h"
#include "reference/core/rules.h"

namespace attn {
namespace {

using Config = AttentionConfig;
using Result = std::optional<Violation>;

template <typename T>
std::string show(const T& value) {
  if constexpr (std::is_same_v<T, bool>) {
    return value ? "true" : "false";
  } else if constexpr (std::is_integral_v<T>) {
    return std::to_string(value);
  } else if constexpr (std::is_floating_point_v<T>) {
    std::array<char, 32> text{};  // the shortest digits that read back as the same value
    return {text.data(), std::to_chars(text.data(), text.data() + text.size(), value).ptr};
  } else {
    return "\"" + std::string(value) + "\"";
  }
}

/// "field = value: text" when `broken`; the text says the rule and, behind a semicolon, what to
/// try.
template <typename T>
Result when(bool broken, const std::string& field, const T& value, const std::string& text) {
  if (!broken) return std::nullopt;
  return Violation{field, field + " = " + show(value) + ": " + text};
}

// ---- What several rules ask.

bool is_layer(const Config& c) { return !c.starts_at_attention(); }

bool encodes(const Config& c, QuantEncoding encoding) {
  return std::ranges::any_of(projections_of(c),
                             [&](const Projection& p) { return p.encoding == encoding; });
}

bool uses_gguf(const Config& c) {
  return std::ranges::any_of(projections_of(c),
                             [](const Projection& p) { return is_gguf(p.encoding); });
}

bool is_fp8(const Config& c) { return encodes(c, QuantEncoding::kFloat8E4M3FN); }

bool clips_weights(const Config& c) { return c.weight_clip().has_value(); }

bool is_window(MaskVariant mask) {
  return mask == MaskVariant::kSlidingWindowCausal || mask == MaskVariant::kSlidingWindowNoncausal;
}

bool in_set(ElementType type, std::initializer_list<ElementType> set) {
  return std::ranges::find(set, type) != set.end();
}

bool is_positive(double value) { return std::isfinite(value) && value > 0.0; }

// ---- Rules that need more than a line.

using Size = std::pair<const char*, std::int64_t>;

/// The sizes that this entry point has.
std::vector<Size> sizes_of(const Config& c) {
  std::vector<Size> sizes{{"num_attention_heads", c.num_attention_heads},
                          {"num_key_value_heads", c.num_key_value_heads},
                          {"head_dim", c.head_dim},
                          {"head_dim_v", c.head_dim_v}};
  if (is_layer(c)) sizes.emplace_back("hidden_size", c.hidden_size);
  return sizes;
}

Result sizes_are_positive(const Config& c) {
  for (const auto& [name, size] : sizes_of(c)) {
    if (size < 1) return when(true, name, size, "a size must be at least 1; give the layer's own");
  }
  return std::nullopt;
}

/// Bounds that keep every product of sizes (elements and bytes of a weight or a page) and every sum
/// of positions inside int64.
Result sizes_are_sane(const Config& c) {
  constexpr std::int64_t kLargestSize = std::int64_t{1} << 20;
  constexpr std::int64_t kLargestPosition = std::int64_t{1} << 40;
  std::vector<Size> sizes = sizes_of(c);
  sizes.emplace_back("kv_cache.page_size", c.kv_cache.page_size);
  sizes.emplace_back("num_devices", c.num_devices);
  for (const auto& [name, size] : sizes) {
    if (size > kLargestSize) return when(true, name, size, "must be at most 2^20; use less");
  }
  const RopeScaling& s = c.rope.scaling;
  const std::initializer_list<Size> positions{
      {"mask.window_size", c.mask.window_size.value_or(0)},
      {"mask.chunk_size", c.mask.chunk_size.value_or(0)},
      {"rope.scaling.original_max_position_embeddings", s.original_max_position_embeddings},
      {"rope.scaling.max_position_embeddings", s.max_position_embeddings}};
  for (const auto& [name, size] : positions) {
    if (size > kLargestPosition) return when(true, name, size, "must be at most 2^40; use less");
  }
  return std::nullopt;
}

Result numbers_are_finite(const Config& c) {
  const RopeScaling& s = c.rope.scaling;
  const std::initializer_list<std::pair<const char*, double>> numbers{
      {"scale", c.scale.value_or(0.0)},
      {"clip_qkv", c.clip_qkv.value_or(0.0)},
      {"clip_activations", c.clip_activations.value_or(0.0)},
      {"logit_softcap", c.logit_softcap.value_or(0.0)},
      {"rope.scaling.mscale", s.mscale},
      {"rope.scaling.mscale_all_dim", s.mscale_all_dim}};
  for (const auto& [name, number] : numbers) {
    if (!std::isfinite(number)) return when(true, name, number, "must be finite; use a number");
  }
  return std::nullopt;
}

/// Keys of the whole layer must keep their defaults where the layer is not run.
Result no_forward_keys(const Config& c) {
  if (is_layer(c)) return std::nullopt;
  const Config defaults;
  const std::string text =
      "a key of the whole layer; entry point attention starts behind it, leave it out";
  const std::initializer_list<Result> results{
      when(c.hidden_size != 0, "hidden_size", c.hidden_size, text),
      when(c.stacked_qkv, "stacked_qkv", true, text),
      when(c.has_bias, "has_bias", true, text),
      when(c.clip_qkv.has_value(), "clip_qkv", c.clip_qkv.value_or(0.0), text),
      when(c.clip_activations.has_value(), "clip_activations", c.clip_activations.value_or(0.0),
           text),
      when(c.use_qk_norm, "use_qk_norm", true, text),
      when(c.rms_norm_eps != defaults.rms_norm_eps, "rms_norm_eps", c.rms_norm_eps, text),
      when(c.num_devices != 1, "num_devices", c.num_devices, text),
      when(c.kv_head_replication, "kv_head_replication", true, text),
      when(c.rope != defaults.rope, "rope.theta", c.rope.theta, text),
      when(c.quant.has_value(), "quant.encoding", name_of(c.quant.value_or(QuantConfig{}).q_proj),
           text)};
  for (const Result& result : results) {
    if (result) return result;
  }
  return std::nullopt;
}

Result scaling_is_sane(const Config& c) {
  const RopeScaling& s = c.rope.scaling;
  const std::string field = "rope.scaling.";
  const std::initializer_list<std::pair<const char*, double>> numbers{
      {"factor", s.factor},
      {"low_freq_factor", s.low_freq_factor},
      {"high_freq_factor", s.high_freq_factor},
      {"beta_fast", s.beta_fast},
      {"beta_slow", s.beta_slow}};
  for (const auto& [name, number] : numbers) {
    if (!is_positive(number)) {
      return when(true, field + name, number, "must be positive and finite; take the model's own");
    }
  }
  for (const std::vector<double>& list : {s.short_factor, s.long_factor}) {
    for (const double number : list) {
      if (!is_positive(number)) {
        const char* name = list == s.short_factor ? "short_factor[]" : "long_factor[]";
        return when(true, field + name, number,
                    "must be positive and finite; take the model's own");
      }
    }
  }
  const bool has_original = s.type >= RopeScalingType::kLlama3;
  const std::int64_t original = s.original_max_position_embeddings;
  if (Result r = when(has_original && original < 2, field + "original_max_position_embeddings",
                      original, "must be at least 2; give the length the model was trained at")) {
    return r;
  }
  return when(s.type == RopeScalingType::kLongrope && s.max_position_embeddings < 1,
              field + "max_position_embeddings", s.max_position_embeddings,
              "must be at least 1; give the model's longest context");
}

Result longrope_lists_are_long_enough(const Config& c) {
  const RopeScaling& s = c.rope.scaling;
  if (s.type != RopeScalingType::kLongrope) return std::nullopt;
  const std::int64_t pairs = c.rotary_dim() / 2;
  const std::initializer_list<Size> lists{
      {"rope.scaling.short_factor", static_cast<std::int64_t>(s.short_factor.size())},
      {"rope.scaling.long_factor", static_cast<std::int64_t>(s.long_factor.size())}};
  for (const auto& [name, size] : lists) {
    if (size < pairs) {
      return when(true, std::string(name) + ".length", size,
                  "needs a factor for each of the rotary_dim / 2 = " + show(pairs) +
                      " pairs; give the missing ones");
    }
  }
  return std::nullopt;
}

Result gguf_blocks_fit(const Config& c) {
  for (const Projection& p : projections_of(c)) {
    const std::int64_t block = gguf_block(p.encoding).elements;
    if (p.in % block != 0) {
      return when(true, p.name == "o_proj" ? "num_attention_heads * head_dim" : "hidden_size", p.in,
                  "the input of " + std::string(p.name) + " must be a multiple of the " +
                      show(block) + " columns of a " + std::string(name_of(p.encoding)) +
                      " block; use such a width or another encoding");
    }
  }
  return std::nullopt;
}

/// Rules 12: the input of each projection in whole blocks of one scale.
Result scale_blocks_fit(const Config& c, QuantEncoding encoding) {
  for (const Projection& p : projections_of(c)) {
    if (p.encoding == encoding && p.in % scale_block(encoding) != 0) {
      return when(true, p.name == "o_proj" ? "num_attention_heads * head_dim" : "hidden_size", p.in,
                  "the input of " + std::string(p.name) + " must be a multiple of the " +
                      show(scale_block(encoding)) + " columns of a " +
                      std::string(name_of(encoding)) + " block; use such a width");
    }
  }
  return std::nullopt;
}

Result gptq_groups_fit(const Config& c) {
  if (!encodes(c, QuantEncoding::kGptq) || c.quant->group_size == -1) return std::nullopt;
  const std::int64_t group = c.quant->group_size;
  for (const Projection& p : projections_of(c)) {
    if (group < 1 || p.in % group != 0) {
      return when(true, "quant.group_size", group,
                  "must divide the input of " + std::string(p.name) + ", " + show(p.in) +
                      "; use a divisor, or -1 for one group over the whole row");
    }
  }
  return std::nullopt;
}

Result fp8_block_heights_fit(const Config& c) {
  if (!is_fp8(c) || c.quant->weight_granularity != WeightGranularity::kBlock) return std::nullopt;
  for (const Projection& p : projections_of(c)) {
    if (p.name != "o_proj" && p.out % c.quant->block_n != 0) {
      return when(true, "quant.block[0]", c.quant->block_n,
                  "must divide the rows of " + std::string(p.name) + ", " + show(p.out) +
                      ", or the stacked scales would be misaligned; use a divisor");
    }
  }
  return std::nullopt;
}

Result encodings_go_together(const Config& c) {
  if (!c.quant) return std::nullopt;
  for (const Projection& p : projections_of(c)) {
    const bool known = p.encoding != QuantEncoding::kNone &&
                       (is_gguf(p.encoding) || p.encoding == c.quant->q_proj);
    if (!known || is_gguf(p.encoding) != is_gguf(c.quant->q_proj)) {
      return when(true, "quant.encoding." + std::string(p.name), name_of(p.encoding),
                  "encodings may differ between projections only among q4_0, q8_0, q4_k, q5_k and "
                  "q6_k; use one for all four, or quant null for none");
    }
  }
  return std::nullopt;
}

Result activation_is_known(const Config& c) {
  if (!c.quant) return std::nullopt;
  using enum ActivationQuant;
  const QuantEncoding encoding = c.quant->q_proj;
  const ActivationQuant activation = c.quant->activation;
  std::string known = "none";
  bool found = activation == kNone;
  if (encoding == QuantEncoding::kFloat8E4M3FN) {
    known += ", static, token, block";
    found = found || activation != kInt8;
  } else if (is_gguf(encoding)) {
    known += ", int8";
    found = found || activation == kInt8;
  } else if (encoding != QuantEncoding::kGptq) {
    known += ", block";
    found = found || activation == kBlock;
  }
  return when(
      !found, "quant.activation", name_of(activation),
      "not one of the activations of " + std::string(name_of(encoding)) + "; known: " + known);
}

constexpr const char* kNoClip =
    "clipping would act on codes, not on weights; leave clip_qkv out, or clip before quantising";
constexpr const char* kStacked = "a stacked weight has no place for it; set stacked_qkv to false";
constexpr const char* kNoOpaque =
    "variant no_opaque does not have it; leave it out, or use variant attention_with_rope";

Result clip_with(const Config& c, QuantEncoding encoding) {
  return when(clips_weights(c) && encodes(c, encoding), "clip_qkv", c.clip_qkv.value_or(0.0),
              "with encoding " + std::string(name_of(encoding)) + " " + kNoClip);
}

// ---- The table. Sizes come first, because later rules divide by them; a variant's own rules come
// before the general ones, so that their messages are the ones that are seen.

constexpr auto kRules = std::to_array<ConfigRule>({
    {"13f", "sizes are at least 1", sizes_are_positive},
    {"13c", "page_size is at least 1",
     [](const Config& c) {
       return when(c.kv_cache.page_size < 1, "kv_cache.page_size", c.kv_cache.page_size,
                   "a page holds at least 1 token; use 16, 64 or 128");
     }},
    {"8c", "num_devices is at least 1",
     [](const Config& c) {
       return when(c.num_devices < 1, "num_devices", c.num_devices,
                   "a layer runs on at least 1 device; use 1");
     }},
    {"13g", "sizes are at most 2^20, positions 2^40", sizes_are_sane},
    {"13i", "numbers are finite", numbers_are_finite},
    {"14a", "materialize_kv_from_hidden needs a layer",
     [](const Config& c) {
       return when(c.entry_point == EntryPoint::kMaterializeKvFromHidden &&
                       c.variant == Variant::kAttention,
                   "entry_point", name_of(c.entry_point),
                   "variant attention has no projections; use variant attention_with_rope");
     }},
    {"14b", "no keys of the layer in entry point attention", no_forward_keys},
    {"14c", "head_dim_v differs from head_dim only in entry point attention",
     [](const Config& c) {
       return when(is_layer(c) && c.head_dim_v != c.head_dim, "head_dim_v", c.head_dim_v,
                   "must equal head_dim = " + show(c.head_dim) +
                       " in a whole layer; leave it out, or use entry point attention");
     }},
    {"13k", "activations are float32, bfloat16 or float16",
     [](const Config& c) {
       return when(!in_set(c.dtype, {ElementType::kFloat32, ElementType::kBFloat16,
                                     ElementType::kFloat16}),
                   "dtype", element_name(c.dtype),
                   "not a type of activations; known: float32, bfloat16, float16");
     }},
    {"13l", "the cache is float32, bfloat16, float16 or float8_e4m3fn",
     [](const Config& c) {
       return when(!in_set(c.kv_cache.dtype, {ElementType::kFloat32, ElementType::kBFloat16,
                                              ElementType::kFloat16, ElementType::kFloat8E4M3FN}),
                   "kv_cache.dtype", element_name(c.kv_cache.dtype),
                   "not a type of caches; known: float32, bfloat16, float16, float8_e4m3fn");
     }},
    {"13m", "only an fp8 cache has scales",
     [](const Config& c) {
       return when(c.kv_cache.scale_granularity != ScaleGranularity::kNone &&
                       c.kv_cache.dtype != ElementType::kFloat8E4M3FN,
                   "kv_cache.scale_granularity", name_of(c.kv_cache.scale_granularity),
                   "a cache of " + std::string(element_name(c.kv_cache.dtype)) +
                       " has no scales; use null, or kv_cache.dtype float8_e4m3fn");
     }},
    {"13a", "rms_norm_eps is positive",
     [](const Config& c) {
       return when(!is_positive(c.rms_norm_eps), "rms_norm_eps", c.rms_norm_eps,
                   "must be positive and finite; use 1e-6");
     }},
    {"13b", "theta is positive",
     [](const Config& c) {
       return when(!is_positive(c.rope.theta), "rope.theta", c.rope.theta,
                   "must be positive and finite; use 10000");
     }},
    {"13d", "clip_qkv is not negative",
     [](const Config& c) {
       return when(c.clip_qkv && !(*c.clip_qkv >= 0.0), "clip_qkv", c.clip_qkv.value_or(0.0),
                   "must not be negative; use its magnitude, or null for no clipping");
     }},
    {"13e", "clip_activations is not negative",
     [](const Config& c) {
       return when(c.clip_activations && !(*c.clip_activations >= 0.0), "clip_activations",
                   c.clip_activations.value_or(0.0),
                   "must not be negative; use its magnitude, or null for no clipping");
     }},
    {"13j", "logit_softcap is positive",
     [](const Config& c) {
       return when(c.logit_softcap && !(*c.logit_softcap > 0.0), "logit_softcap",
                   c.logit_softcap.value_or(0.0), "must be positive; use null for no cap");
     }},
    {"13o", "encodings go together", encodings_go_together},
    {"13n", "the activation belongs to the encoding", activation_is_known},
    {"3a", "no_opaque is stacked",
     [](const Config& c) {
       return when(c.variant == Variant::kNoOpaque && !c.stacked_qkv, "stacked_qkv", false,
                   "variant no_opaque has one stacked weight; set stacked_qkv to true");
     }},
    {"3b", "no_opaque is interleaved",
     [](const Config& c) {
       return when(c.variant == Variant::kNoOpaque && !c.rope.interleaved, "rope.interleaved",
                   false, "variant no_opaque rotates interleaved pairs; set it to true");
     }},
    {"3c", "no_opaque has no bias",
     [](const Config& c) {
       return when(c.variant == Variant::kNoOpaque && c.has_bias, "has_bias", true, kNoOpaque);
     }},
    {"3d", "no_opaque clips no weights",
     [](const Config& c) {
       return when(c.variant == Variant::kNoOpaque && clips_weights(c), "clip_qkv",
                   c.clip_qkv.value_or(0.0), kNoOpaque);
     }},
    {"3e", "no_opaque clips no activations",
     [](const Config& c) {
       return when(c.variant == Variant::kNoOpaque && c.clip_activations.has_value(),
                   "clip_activations", c.clip_activations.value_or(0.0), kNoOpaque);
     }},
    {"3f", "no_opaque has no qk-norm",
     [](const Config& c) {
       return when(c.variant == Variant::kNoOpaque && c.use_qk_norm, "use_qk_norm", true,
                   kNoOpaque);
     }},
    {"3g", "no_opaque is not quantised",
     [](const Config& c) {
       return when(c.variant == Variant::kNoOpaque && c.quant.has_value(), "quant.encoding",
                   name_of(c.quant.value_or(QuantConfig{}).q_proj), kNoOpaque);
     }},
    {"1a", "a stacked weight has no bias",
     [](const Config& c) { return when(c.stacked_qkv && c.has_bias, "has_bias", true, kStacked); }},
    {"1b", "a stacked weight is not clipped",
     [](const Config& c) {
       return when(c.stacked_qkv && clips_weights(c), "clip_qkv", c.clip_qkv.value_or(0.0),
                   kStacked);
     }},
    {"1c", "a stacked weight is not quantised",
     [](const Config& c) {
       return when(c.stacked_qkv && c.quant.has_value(), "quant.encoding",
                   name_of(c.quant.value_or(QuantConfig{}).q_proj), kStacked);
     }},
    // The GGUF layer refuses every clip_qkv that is given, 0 included.
    {"2a", "gguf weights are not clipped",
     [](const Config& c) {
       return when(c.clip_qkv && (c.variant == Variant::kGguf || uses_gguf(c)), "clip_qkv",
                   c.clip_qkv.value_or(0.0), std::string("with gguf weights ") + kNoClip);
     }},
    {"2b", "gptq weights are not clipped",
     [](const Config& c) { return clip_with(c, QuantEncoding::kGptq); }},
    {"2c", "nvfp4 weights are not clipped",
     [](const Config& c) { return clip_with(c, QuantEncoding::kNvfp4); }},
    {"2d", "mxfp4 weights are not clipped",
     [](const Config& c) { return clip_with(c, QuantEncoding::kMxfp4); }},
    {"2e", "mxfp8 weights are not clipped",
     [](const Config& c) { return clip_with(c, QuantEncoding::kMxfp8); }},
    {"4", "whole groups of query heads",
     [](const Config& c) {
       return when(c.num_attention_heads % c.num_key_value_heads != 0, "num_attention_heads",
                   c.num_attention_heads,
                   "must be a multiple of num_key_value_heads = " + show(c.num_key_value_heads) +
                       "; change one of the two");
     }},
    {"5c", "rotary_dim is at least 2",
     [](const Config& c) {
       return when(is_layer(c) && c.rotary_dim() < 1, "rope.rotary_dim", c.rotary_dim(),
                   "must be positive; leave it out to rotate all of head_dim");
     }},
    {"5a", "rotary_dim is even",
     [](const Config& c) {
       return when(is_layer(c) && c.rotary_dim() % 2 != 0,
                   c.rope.rotary_dim ? "rope.rotary_dim" : "head_dim", c.rotary_dim(),
                   "channels rotate in pairs, so their number must be even; set rope.rotary_dim");
     }},
    {"5b", "rotary_dim fits into head_dim",
     [](const Config& c) {
       return when(is_layer(c) && c.rotary_dim() > c.head_dim, "rope.rotary_dim", c.rotary_dim(),
                   "must not be larger than head_dim = " + show(c.head_dim) +
                       "; leave it out to rotate all of it");
     }},
    {"13p", "the parameters of rope.scaling are positive", scaling_is_sane},
    {"13q", "longrope has a factor for each pair", longrope_lists_are_long_enough},
    {"7a", "a sliding window has a size",
     [](const Config& c) {
       return when(is_window(c.mask.variant) && !c.mask.window_size, "mask.variant",
                   name_of(c.mask.variant), "needs window_size; give the number of visible keys");
     }},
    {"7b", "chunked_causal has a chunk size",
     [](const Config& c) {
       return when(c.mask.variant == MaskVariant::kChunkedCausal && !c.mask.chunk_size,
                   "mask.variant", name_of(c.mask.variant),
                   "needs chunk_size; give the number of keys in a chunk");
     }},
    {"7c", "window_size belongs to a sliding window",
     [](const Config& c) {
       return when(c.mask.window_size && !is_window(c.mask.variant), "mask.window_size",
                   c.mask.window_size.value_or(0),
                   "mask variant " + std::string(name_of(c.mask.variant)) +
                       " has no window; leave it out, or use sliding_window_causal");
     }},
    {"7d", "chunk_size belongs to chunked_causal",
     [](const Config& c) {
       return when(c.mask.chunk_size && c.mask.variant != MaskVariant::kChunkedCausal,
                   "mask.chunk_size", c.mask.chunk_size.value_or(0),
                   "mask variant " + std::string(name_of(c.mask.variant)) +
                       " has no chunks; leave it out, or use chunked_causal");
     }},
    {"7e", "window_size is at least 1",
     [](const Config& c) {
       return when(c.mask.window_size && *c.mask.window_size < 1, "mask.window_size",
                   c.mask.window_size.value_or(0), "a window holds at least 1 key; use 1 or more");
     }},
    {"7f", "chunk_size is at least 1",
     [](const Config& c) {
       return when(c.mask.chunk_size && *c.mask.chunk_size < 1, "mask.chunk_size",
                   c.mask.chunk_size.value_or(0), "a chunk holds at least 1 key; use 1 or more");
     }},
    {"8a", "tensor_parallel has at most a device for each kv head",
     [](const Config& c) {
       return when(c.variant == Variant::kTensorParallel && !c.kv_head_replication &&
                       c.num_devices > c.num_key_value_heads,
                   "num_devices", c.num_devices,
                   "more than num_key_value_heads = " + show(c.num_key_value_heads) +
                       "; use fewer devices, or set kv_head_replication to true");
     }},
    {"8b", "replicated kv heads divide the device count",
     [](const Config& c) {
       return when(c.variant == Variant::kTensorParallel && c.kv_head_replication &&
                       c.num_devices > c.num_key_value_heads &&
                       c.num_devices % c.num_key_value_heads != 0,
                   "num_devices", c.num_devices,
                   "must be a multiple of num_key_value_heads = " + show(c.num_key_value_heads) +
                       " to replicate each as often; use such a device count");
     }},
    {"9a", "gguf activations are float32",
     [](const Config& c) {
       return when((c.variant == Variant::kGguf || uses_gguf(c)) &&
                       c.dtype != ElementType::kFloat32,
                   "dtype", element_name(c.dtype), "the gguf layer runs in float32; use float32");
     }},
    {"9b", "gguf rows are whole blocks", gguf_blocks_fit},
    {"10a", "gptq has 4 or 8 bits",
     [](const Config& c) {
       return when(encodes(c, QuantEncoding::kGptq) && c.quant->bits != 4 && c.quant->bits != 8,
                   "quant.bits", c.quant.value_or(QuantConfig{}).bits,
                   "gptq codes have 4 or 8 bits; use 4 or 8");
     }},
    {"10b", "gptq groups divide the input", gptq_groups_fit},
    {"10c", "gptq is symmetric",
     [](const Config& c) {
       return when(encodes(c, QuantEncoding::kGptq) && !c.quant->sym, "quant.sym", false,
                   "only symmetric codes are decoded; quantise with sym true");
     }},
    {"11a", "static activations have no row-wise weights",
     [](const Config& c) {
       return when(is_fp8(c) && c.quant->activation == ActivationQuant::kStatic &&
                       c.quant->weight_granularity == WeightGranularity::kRowwise,
                   "quant.weight_granularity", "rowwise",
                   "static activations need weight_granularity tensor; use it, or activation token");
     }},
    {"11b", "static activations have no block weights",
     [](const Config& c) {
       return when(is_fp8(c) && c.quant->activation == ActivationQuant::kStatic &&
                       c.quant->weight_granularity == WeightGranularity::kBlock,
                   "quant.weight_granularity", "block",
                   "static activations need weight_granularity tensor; use it, or activation block");
     }},
    {"11e", "blocks are 1 to 2^20 wide and high",
     [](const Config& c) {
       const QuantConfig q = c.quant.value_or(QuantConfig{});
       constexpr std::int64_t kLargest = std::int64_t{1} << 20;
       const bool rows_fit = q.block_n >= 1 && q.block_n <= kLargest;
       const bool columns_fit = q.block_k >= 1 && q.block_k <= kLargest;
       return when(is_fp8(c) && !(rows_fit && columns_fit),
                   rows_fit ? "quant.block[1]" : "quant.block[0]", rows_fit ? q.block_k : q.block_n,
                   "a block has at least 1 and at most 2^20 rows and columns; use [128, 128]");
     }},
    {"11c", "fp8 blocks divide the heights of q, k and v", fp8_block_heights_fit},
    {"11f", "block activations are 128 wide",
     [](const Config& c) {
       const QuantConfig q = c.quant.value_or(QuantConfig{});
       return when(is_fp8(c) && q.activation == ActivationQuant::kBlock && q.block_k != 128,
                   "quant.block[1]", q.block_k,
                   "activations are quantised by 128 columns, and a weight block is as wide; use "
                   "128");
     }},
    {"12a", "nvfp4 rows are whole blocks",
     [](const Config& c) { return scale_blocks_fit(c, QuantEncoding::kNvfp4); }},
    {"12b", "mxfp4 rows are whole blocks",
     [](const Config& c) { return scale_blocks_fit(c, QuantEncoding::kMxfp4); }},
    {"12c", "mxfp8 rows are whole blocks",
     [](const Config& c) { return scale_blocks_fit(c, QuantEncoding::kMxfp8); }},
});

}  // namespace

std::span<const ConfigRule> config_rules() { return kRules; }

}  // namespace attn
