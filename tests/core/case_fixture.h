#pragma once

#include <string>
#include <utility>
#include <vector>

#include "reference/core/case.h"
#include "reference/core/config.h"
#include "reference/core/paging.h"

namespace attn::test {

/// A valid layer: 4 query heads, 2 key-value heads, head_dim 16, hidden 64, float32, causal.
inline AttentionConfig layer_config() {
  AttentionConfig c;
  c.num_attention_heads = 4;
  c.num_key_value_heads = 2;
  c.head_dim = 16;
  c.head_dim_v = 16;
  c.hidden_size = 64;
  c.kv_cache.page_size = 16;
  return c;
}

/// A valid config of entry point attention.
inline AttentionConfig attention_config() {
  AttentionConfig c = layer_config();
  c.variant = Variant::kAttention;
  c.entry_point = EntryPoint::kAttention;
  c.hidden_size = 0;
  return c;
}

/// A valid layer, 256 wide, with every projection in `encoding`.
inline AttentionConfig quantised_config(QuantEncoding encoding) {
  AttentionConfig c = layer_config();
  c.head_dim = 64;
  c.head_dim_v = 64;
  c.hidden_size = 256;
  c.quant = QuantConfig{};
  c.quant->q_proj = c.quant->k_proj = c.quant->v_proj = c.quant->o_proj = encoding;
  return c;
}

inline Tensor index_tensor(const std::vector<double>& values) {
  return Tensor::from_values(ElementType::kUInt32, {static_cast<std::int64_t>(values.size())},
                             values);
}

/// A valid case of the config with zeros in all tensors (gptq zero points set): two sequences, of 5
/// cached and 3 new tokens and of 20 cached and 1 new (attention: 3 queries on 8 keys, 1 on 21).
inline Case make_case(const AttentionConfig& config) {
  Case c;
  c.config = config;
  for (const TensorSpec& spec : expected_weights(config)) {
    if (spec.optional) continue;
    Tensor tensor(spec.types.front(), spec.shape);
    if (spec.name.ends_with("qzeros")) {
      // zero - 1 = 7 in every nibble, or 127 in every byte
      const std::uint64_t word = config.quant->bits == 4 ? 0x77777777 : 0x7f7f7f7f;
      for (std::int64_t i = 0; i < tensor.size(); ++i) tensor.set_code(i, word);
    }
    c.weights[spec.name] = std::move(tensor);
  }
  const bool attention = config.starts_at_attention();
  c.input_row_offsets = index_tensor({0, 3, 4});
  c.cache_lengths = attention ? index_tensor({8, 21}) : index_tensor({5, 20});
  if (attention) {
    c.q = Tensor(config.dtype, {4, config.num_attention_heads, config.head_dim});
  } else {
    c.x = Tensor(config.dtype, {4, config.hidden_size});
    c.freqs_cis = Tensor(ElementType::kFloat32, {21, config.rotary_dim()});
  }
  if (config.mask.variant == MaskVariant::kTensor) c.mask = Tensor(ElementType::kFloat32, {4, 21});
  const std::vector<std::int64_t> lengths{c.cached(0), c.cached(1)};
  const std::vector<std::int64_t> capacity{c.key_count(0), c.key_count(1)};
  const std::int64_t total = lengths[0] + lengths[1];
  const std::int64_t heads = config.num_key_value_heads;
  Tensor scale;
  if (config.kv_cache.scale_granularity != ScaleGranularity::kNone) {
    Shape shape;
    if (config.kv_cache.scale_granularity == ScaleGranularity::kHead) shape = {heads};
    if (config.kv_cache.scale_granularity == ScaleGranularity::kTokenHead) shape = {total, heads};
    scale = Tensor(ElementType::kFloat32, shape);
  }
  c.cache = make_paged_cache(config, Tensor(config.kv_cache.dtype, {total, heads, config.head_dim}),
                             Tensor(config.kv_cache.dtype, {total, heads, config.head_dim_v}),
                             scale, scale, lengths, capacity, {});
  return c;
}

}  // namespace attn::test
