#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "reference/core/case.h"
#include "reference/core/paging.h"
#include "reference/core/philox.h"
#include "reference/core/rules.h"

namespace attn::harness {

/// Standard normal numbers times `size`, different for each name.
inline Tensor random_tensor(ElementType type, Shape shape, std::uint64_t seed,
                            const std::string& name, double size = 1.0) {
  std::vector<double> values(static_cast<std::size_t>(num_elements(shape)));
  RandomStream(seed, name).normals(0, values);
  for (double& v : values) v *= size;
  return Tensor::from_values(type, std::move(shape), values);
}

inline Tensor uint32_tensor(const std::vector<std::int64_t>& values) {
  Tensor tensor(ElementType::kUInt32, {static_cast<std::int64_t>(values.size())});
  for (std::size_t i = 0; i < values.size(); ++i) {
    tensor.set_code(static_cast<std::int64_t>(i), static_cast<std::uint64_t>(values[i]));
  }
  return tensor;
}

/// [cached, new] tokens of a sequence; [queries, keys] for entry point attention.
using RowPairs = std::vector<std::pair<std::int64_t, std::int64_t>>;

/// A validated case of random numbers; its cache is the second of three layers of a shuffled pool
/// whose unused slots hold NaN.
inline Case random_case(const AttentionConfig& config, const RowPairs& rows, std::uint64_t seed,
                        bool sinks = false) {
  Case c;
  c.config = config;
  std::vector<std::int64_t> offsets{0}, lengths, capacity;
  for (const auto& [first, second] : rows) {
    const bool core = config.starts_at_attention();
    offsets.push_back(offsets.back() + (core ? first : second));
    lengths.push_back(core ? second : first);
    capacity.push_back(core ? second : first + second);
  }
  const std::int64_t tokens = offsets.back();
  c.input_row_offsets = uint32_tensor(offsets);
  c.cache_lengths = uint32_tensor(lengths);
  std::int64_t stored = 0;
  for (const std::int64_t n : lengths) stored += n;
  const std::int64_t longest = capacity.empty() ? 0 : *std::ranges::max_element(capacity);
  const ElementType cache_type = config.kv_cache.dtype;
  const std::int64_t heads = config.num_key_value_heads;
  const Tensor k = random_tensor(cache_type, {stored, heads, config.head_dim}, seed, "k");
  const Tensor v = random_tensor(cache_type, {stored, heads, config.head_dim_v}, seed, "v");
  PagingOptions paging;
  paging.seed = seed;
  paging.num_layers = 3;
  paging.layer = 1;
  c.cache = make_paged_cache(config, k, v, {}, {}, lengths, capacity, paging);
  if (sinks)
    c.weights["sinks"] =
        random_tensor(ElementType::kFloat32, {config.num_attention_heads}, seed, "sinks", 2.0);
  if (config.starts_at_attention()) {
    c.q = random_tensor(config.dtype, {tokens, config.num_attention_heads, config.head_dim}, seed,
                        "q");
    if (config.mask.variant == MaskVariant::kTensor) {
      c.mask = random_tensor(ElementType::kFloat32, {tokens, longest}, seed, "mask", 2.0);
    }
  } else {
    c.x = random_tensor(config.dtype, {tokens, config.hidden_size}, seed, "x");
    std::vector<double> table;
    for (std::int64_t p = 0; p < std::max<std::int64_t>(longest, 1); ++p) {
      for (std::int64_t j = 0; j < config.rotary_dim() / 2; ++j) {
        const double angle = static_cast<double>(p) * std::pow(0.7, static_cast<double>(j));
        table.push_back(std::cos(angle));
        table.push_back(std::sin(angle));
      }
    }
    c.freqs_cis = Tensor::from_values(
        ElementType::kFloat32, {std::max<std::int64_t>(longest, 1), config.rotary_dim()}, table);
    for (const TensorSpec& spec : expected_weights(config)) {
      if (spec.optional) continue;
      const double size =
          spec.shape.size() == 2 ? 1.0 / std::sqrt(static_cast<double>(spec.shape[1])) : 1.0;
      c.weights[spec.name] = random_tensor(spec.types.front(), spec.shape, seed, spec.name, size);
    }
  }
  validate(c);
  return c;
}

inline AttentionConfig core_config(std::int64_t heads, std::int64_t kv_heads,
                                   std::int64_t head_dim) {
  AttentionConfig config;
  config.variant = Variant::kAttention;
  config.entry_point = EntryPoint::kAttention;
  config.num_attention_heads = heads;
  config.num_key_value_heads = kv_heads;
  config.head_dim = head_dim;
  config.head_dim_v = head_dim;
  config.kv_cache.page_size = 16;
  return config;
}

inline AttentionConfig layer_config(std::int64_t heads, std::int64_t kv_heads,
                                    std::int64_t head_dim, std::int64_t hidden) {
  AttentionConfig config = core_config(heads, kv_heads, head_dim);
  config.variant = Variant::kAttentionWithRope;
  config.entry_point = EntryPoint::kForward;
  config.hidden_size = hidden;
  return config;
}

}  // namespace attn::harness
