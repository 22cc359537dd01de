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

/// `size` times a number from 0.5 to 1.5: scales, all different.
inline Tensor random_scales(ElementType type, Shape shape, std::uint64_t seed,
                            const std::string& name, double size) {
  Tensor tensor(type, std::move(shape));
  const RandomStream random(seed, name);
  for (std::int64_t i = 0; i < tensor.size(); ++i) {
    tensor.set_value(i, size * (0.5 + random.uniform(static_cast<std::uint64_t>(i))));
  }
  return tensor;
}

/// Random bytes or words of codes. GGUF blocks of `block` bytes get an ordinary float16, 0.01, at
/// `halves`, where their scales are.
inline Tensor random_codes(const TensorSpec& spec, std::uint64_t seed, std::int64_t block,
                           const std::vector<std::int64_t>& halves) {
  Tensor tensor(spec.types.front(), spec.shape);
  const RandomStream random(seed, spec.name);
  std::uint64_t i = 0;
  for (std::byte& byte : tensor.bytes()) byte = static_cast<std::byte>(random.bits(i++) & 0xffu);
  for (std::int64_t first = 0; !halves.empty() && first < tensor.size(); first += block) {
    for (const std::int64_t half : halves) {
      tensor.set_code(first + half, 0x1f);  // 0x211f
      tensor.set_code(first + half + 1, 0x21);
    }
  }
  return tensor;
}

inline Tensor random_gguf(const TensorSpec& spec, std::uint64_t seed, QuantEncoding encoding) {
  switch (encoding) {
    case QuantEncoding::kQ4_0:
      return random_codes(spec, seed, 18, {0});
    case QuantEncoding::kQ8_0:
      return random_codes(spec, seed, 34, {0});
    case QuantEncoding::kQ4_K:
      return random_codes(spec, seed, 144, {0, 2});
    case QuantEncoding::kQ5_K:
      return random_codes(spec, seed, 176, {0, 2});
    case QuantEncoding::kQ6_K:
      return random_codes(spec, seed, 210, {208});
    default:
      return random_codes(spec, seed, 1, {});
  }
}

inline QuantEncoding encoding_of(const QuantConfig& quant, const std::string& weight_name) {
  if (weight_name.starts_with("q_")) return quant.q_proj;
  if (weight_name.starts_with("k_")) return quant.k_proj;
  return weight_name.starts_with("v_") ? quant.v_proj : quant.o_proj;
}

/// A tensor of a quantised projection.
inline Tensor random_quantised(const TensorSpec& spec, std::uint64_t seed,
                               const QuantConfig& quant) {
  const QuantEncoding encoding = encoding_of(quant, spec.name);
  const ElementType type = spec.types.front();
  if (spec.name.ends_with(".g_idx")) {
    Tensor tensor(type, spec.shape);
    const std::int64_t in = tensor.size();
    const std::int64_t group = quant.group_size > 0 ? quant.group_size : in;
    for (std::int64_t k = 0; k < in; ++k) {
      // 5 is prime to the widths in use: with desc_act the columns of a group lie apart.
      const std::int64_t from = quant.desc_act ? k * 5 % in : k;
      tensor.set_code(k, static_cast<std::uint64_t>(from / group));
    }
    return tensor;
  }
  if (spec.name.ends_with(".qzeros")) {
    Tensor tensor(type, spec.shape);
    const std::uint64_t zero = (1u << (quant.bits - 1)) - (quant.checkpoint_v2 ? 0u : 1u);
    std::uint64_t word = 0;
    for (std::int64_t shift = 0; shift < 32; shift += quant.bits) word |= zero << shift;
    for (std::int64_t i = 0; i < tensor.size(); ++i) tensor.set_code(i, word);
    return tensor;
  }
  const bool is_scale = spec.name.find("scale") != std::string::npos;
  if (is_scale) return random_scales(type, spec.shape, seed, spec.name, 0.02);
  if (type == ElementType::kUInt8 || type == ElementType::kInt32) {
    return random_gguf(spec, seed, encoding);
  }
  return random_tensor(type, spec.shape, seed, spec.name);
}

inline Tensor random_cache_scale(const AttentionConfig& config, std::int64_t stored,
                                 std::uint64_t seed, const std::string& name) {
  const std::int64_t heads = config.num_key_value_heads;
  switch (config.kv_cache.scale_granularity) {
    case ScaleGranularity::kNone:
      return {};
    case ScaleGranularity::kTensor:
      return random_scales(ElementType::kFloat32, {}, seed, name, 0.1);
    case ScaleGranularity::kHead:
      return random_scales(ElementType::kFloat32, {heads}, seed, name, 0.1);
    case ScaleGranularity::kTokenHead:
      return random_scales(ElementType::kFloat32, {stored, heads}, seed, name, 0.1);
  }
  return {};
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
  c.cache = make_paged_cache(config, k, v, random_cache_scale(config, stored, seed, "k_scale"),
                             random_cache_scale(config, stored, seed, "v_scale"), lengths, capacity,
                             paging);
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
      const bool is_projection = spec.name.find("_proj.") != std::string::npos;
      if (config.quant && is_projection && !spec.name.ends_with(".bias")) {
        c.weights[spec.name] = random_quantised(spec, seed, *config.quant);
        continue;
      }
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
