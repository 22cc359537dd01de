#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <utility>

#include "reference/core/rules_internal.h"

namespace attn {
namespace {

using Config = AttentionConfig;
using Result = std::optional<Violation>;

bool is_layer(const Config& c) { return !c.starts_at_attention(); }

bool in_set(ElementType type, std::initializer_list<ElementType> set) {
  return std::ranges::find(set, type) != set.end();
}

bool is_positive(double value) { return std::isfinite(value) && value > 0.0; }

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
  const std::initializer_list<std::pair<const char*, const std::vector<double>*>> lists{
      {"short_factor[]", &s.short_factor}, {"long_factor[]", &s.long_factor}};
  for (const auto& [name, list] : lists) {
    const auto bad = std::ranges::find_if_not(*list, is_positive);
    if (bad != list->end()) {
      return when(true, field + name, *bad, "must be positive and finite; take the model's own");
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

// Sizes come first, because later rules divide by them.
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
       return when(
           !in_set(c.dtype, {ElementType::kFloat32, ElementType::kBFloat16, ElementType::kFloat16}),
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
    {"13p", "the parameters of rope.scaling are positive", scaling_is_sane},
    {"13q", "longrope has a factor for each pair", longrope_lists_are_long_enough},
});

}  // namespace

std::span<const ConfigRule> value_rules() { return kRules; }

}  // namespace attn
