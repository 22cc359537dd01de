#include <algorithm>
#include <utility>

#include "reference/core/error.h"
#include "reference/core/rules_internal.h"

namespace attn {
namespace {

using Result = std::optional<Violation>;

/// An axis of any length.
constexpr std::int64_t kAny = -1;

/// What a case must hold: a tensor and its specification.
struct Required {
  TensorSpec spec;
  const Tensor* tensor;
};

void add_cache(const Case& c, std::vector<Required>& list) {
  const AttentionConfig& config = c.config;
  const KvCache& cache = c.cache;
  const std::int64_t pages = cache.k.shape().empty() ? kAny : cache.num_pages();
  const std::int64_t heads = config.num_key_value_heads;
  const auto pool = [&](const char* name, const Tensor& tensor, ElementType type, Shape tail) {
    Shape shape{pages, cache.num_layers, config.kv_cache.page_size, heads};
    shape.insert(shape.end(), tail.begin(), tail.end());
    list.push_back({{name, std::move(shape), {type}}, &tensor});
  };
  pool("cache/k", cache.k, config.kv_cache.dtype, {config.head_dim});
  pool("cache/v", cache.v, config.kv_cache.dtype, {config.head_dim_v});
  list.push_back({{"cache/page_table", {c.cache_lengths.size(), kAny}, {ElementType::kUInt32}},
                  &cache.page_table});
  const std::pair<const char*, const Tensor*> scales[] = {{"cache/k_scale", &cache.k_scale},
                                                          {"cache/v_scale", &cache.v_scale}};
  for (const auto& [name, tensor] : scales) {
    switch (config.kv_cache.scale_granularity) {
      case ScaleGranularity::kNone:
        break;
      case ScaleGranularity::kTensor:
        list.push_back({{name, {}, {ElementType::kFloat32}}, tensor});
        break;
      case ScaleGranularity::kHead:
        list.push_back({{name, {heads}, {ElementType::kFloat32}}, tensor});
        break;
      case ScaleGranularity::kTokenHead:
        pool(name, *tensor, ElementType::kFloat32, {});
        break;
    }
  }
}

/// Every tensor that the case's config needs, weights by their names in a golden file.
std::vector<Required> required_tensors(const Case& c) {
  const AttentionConfig& config = c.config;
  static const Tensor kAbsent;
  std::vector<Required> list;
  for (TensorSpec& spec : expected_weights(config)) {
    const auto it = c.weights.find(spec.name);
    spec.name = "weights/" + spec.name;
    list.push_back({std::move(spec), it == c.weights.end() ? &kAbsent : &it->second});
  }
  const std::vector<ElementType> index{ElementType::kUInt32};
  list.push_back({{"inputs/input_row_offsets", {kAny}, index}, &c.input_row_offsets});
  list.push_back({{lengths_name(c), {c.input_row_offsets.size() - 1}, index}, &c.cache_lengths});
  if (config.starts_at_attention()) {
    const Shape shape{kAny, config.num_attention_heads, config.head_dim};
    list.push_back({{"inputs/q", shape, {config.dtype}}, &c.q});
  } else {
    list.push_back({{"inputs/x", {kAny, config.hidden_size}, {config.dtype}}, &c.x});
    list.push_back(
        {{"inputs/freqs_cis", {kAny, config.rotary_dim()}, {ElementType::kFloat32}}, &c.freqs_cis});
  }
  if (config.mask.variant == MaskVariant::kTensor) {
    list.push_back({{"inputs/mask", {kAny, kAny}, {ElementType::kFloat32}}, &c.mask});
  }
  add_cache(c, list);
  return list;
}

bool fits(const Shape& shape, const Shape& wanted) {
  return shape.size() == wanted.size() &&
         std::equal(shape.begin(), shape.end(), wanted.begin(),
                    [](std::int64_t n, std::int64_t w) { return w == kAny || n == w; });
}

/// "[*, 128]" for a specification's shape.
std::string show(const Shape& wanted) {
  std::string text;
  for (const std::int64_t n : wanted) {
    text += text.empty() ? "[" : ", ";
    text += n == kAny ? "*" : std::to_string(n);
  }
  return text.empty() ? "[]" : text + "]";
}

Violation wrong_shape(const Required& r) {
  return violation(r.spec.name, "shape " + to_string(r.tensor->shape()),
                   "the config needs shape " + show(r.spec.shape) + "; store it so");
}

bool is_fp8_scale(const Case& c, const std::string& name) {
  const bool fp8_weights = c.config.quant && c.config.quant->q_proj == QuantEncoding::kFloat8E4M3FN;
  return name.starts_with("cache/") ? name.ends_with("_scale")
                                    : fp8_weights && name.ends_with("_scale");
}

Result fp8_scales_have_their_shape(const Case& c) {
  for (const Required& r : required_tensors(c)) {
    if (r.tensor->empty() || !is_fp8_scale(c, r.spec.name)) continue;
    if (!fits(r.tensor->shape(), r.spec.shape)) return wrong_shape(r);
  }
  return std::nullopt;
}

Result tensors_are_present(const Case& c) {
  for (const Required& r : required_tensors(c)) {
    if (r.tensor->empty() && !r.spec.optional) {
      return violation(r.spec.name, "nothing",
                       "the config needs it, " + std::string(element_name(r.spec.types.front())) +
                           " " + show(r.spec.shape) + "; add it");
    }
  }
  return std::nullopt;
}

Result tensors_have_their_type(const Case& c) {
  for (const Required& r : required_tensors(c)) {
    if (r.tensor->empty() || std::ranges::count(r.spec.types, r.tensor->type()) != 0) continue;
    std::string wanted;
    for (const ElementType type : r.spec.types) {
      wanted += (wanted.empty() ? "" : " or ") + std::string(element_name(type));
    }
    return violation(r.spec.name, std::string(element_name(r.tensor->type())),
                     "the config needs " + wanted + "; convert it");
  }
  return std::nullopt;
}

Result tensors_have_their_shape(const Case& c) {
  for (const Required& r : required_tensors(c)) {
    if (!r.tensor->empty() && !fits(r.tensor->shape(), r.spec.shape)) return wrong_shape(r);
  }
  return std::nullopt;
}

Result weights_are_known(const Case& c) {
  std::vector<std::string> known;
  for (const TensorSpec& spec : expected_weights(c.config)) known.push_back(spec.name);
  for (const auto& [name, tensor] : c.weights) {
    if (std::ranges::count(known, name) == 0) {
      return violation("weights/" + name, to_string(tensor.shape()),
                       "the config has no weight of this name" + hint(name, known));
    }
  }
  return std::nullopt;
}

Result inputs_are_used(const Case& c) {
  const bool attention = c.config.starts_at_attention();
  const bool has_mask = c.config.mask.variant == MaskVariant::kTensor;
  const std::pair<const char*, const Tensor*> unused[] = {
      {"inputs/q", attention ? nullptr : &c.q},
      {"inputs/x", attention ? &c.x : nullptr},
      {"inputs/freqs_cis", attention ? &c.freqs_cis : nullptr},
      {"inputs/mask", has_mask ? nullptr : &c.mask}};
  for (const auto& [name, tensor] : unused) {
    if (tensor != nullptr && !tensor->empty()) {
      return violation(name, to_string(tensor->shape()),
                       "this entry point and mask variant do not read it; leave it out");
    }
  }
  return std::nullopt;
}

// Ids that begin with t are about the tensors that golden-format.md lists.
constexpr auto kRules = std::to_array<CaseRule>({
    {"t1", "tensors are present", tensors_are_present},
    {"t2", "tensors have their element type", tensors_have_their_type},
    {"11d", "fp8 scales have their shape", fp8_scales_have_their_shape},
    {"t3", "tensors have their shape", tensors_have_their_shape},
    {"13r", "weights have known names", weights_are_known},
    {"t4", "inputs are used", inputs_are_used},
});

}  // namespace

std::span<const CaseRule> tensor_rules() { return kRules; }

}  // namespace attn
