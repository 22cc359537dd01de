#include "reference/layers/shard_heads.h"

#include <numeric>
#include <string>

#include "reference/layers/shard_axis.h"
#include "reference/layers/shard_blocks.h"
#include "reference/layers/shard_gptq.h"

namespace attn::reference {
namespace {

/// Rows of q_proj, k_proj or v_proj that a device holds.
Range rows_of(const std::string& projection, const AttentionConfig& config,
              const DeviceHeads& heads) {
  const Range range = projection == "q_proj" ? heads.q_heads : heads.kv_heads;
  const std::int64_t dim = projection == "v_proj" ? config.head_dim_v : config.head_dim;
  return {range.first * dim, range.count * dim};
}

/// Q, K and V of the stacked weight, each split by heads, stacked again.
Tensor take_stacked_rows(const AttentionConfig& config, const Tensor& stored,
                         const DeviceHeads& heads) {
  const Range q = rows_of("q_proj", config, heads);
  Range k = rows_of("k_proj", config, heads);
  Range v = rows_of("v_proj", config, heads);
  k.first += config.q_width();
  v.first += config.q_width() + config.k_width();
  Tensor part(stored.type(), {q.count + k.count + v.count, stored.dim(1)});
  put(part, 0, 0, take(stored, 0, q));
  put(part, 0, q.count, take(stored, 0, k));
  put(part, 0, q.count + k.count, take(stored, 0, v));
  return part;
}

/// Tensor "projection.suffix" of q, k or v cut to the device's rows.
Tensor take_rows(const AttentionConfig& config, const std::string& projection,
                 const std::string& suffix, const Tensor& stored, const DeviceHeads& heads,
                 const AttentionConfig& device) {
  const Range rows = rows_of(projection, config, heads);
  if (suffix == "weight" || suffix == "bias") return take(stored, 0, rows);
  if (suffix == "qweight" || suffix == "scales") return take(stored, 1, rows);
  if (suffix == "qzeros") return take_packed(stored, 1, rows, config.quant->bits);
  if (suffix == "weight_scale" && has_fp8_blocks(config)) {
    return take_block_scales(stored, rows, {0, config.hidden_size}, *config.quant, *device.quant);
  }
  if (suffix == "weight_scale" && !stored.shape().empty()) return take(stored, 0, rows);
  return stored;  // g_idx, and the scales of a whole tensor
}

/// Tensor "o_proj.suffix" cut to input columns `columns`.
Tensor take_columns(const AttentionConfig& config, const std::string& suffix, const Tensor& stored,
                    Range columns, const AttentionConfig& device) {
  // As many stored items as the whole width has; those of the cut are in the same proportion.
  const auto in_proportion = [&](std::int64_t items) -> Range {
    const std::int64_t width = config.attn_width();
    return {columns.first * items / width, columns.count * items / width};
  };
  if (suffix == "qweight") return take_packed(stored, 0, columns, config.quant->bits);
  if (suffix == "g_idx") return take(stored, 0, columns);
  if (suffix == "weight_scale" && has_fp8_blocks(config)) {
    return take_block_scales(stored, {0, config.hidden_size}, columns, *config.quant,
                             *device.quant);
  }
  // Elements, packed blocks and the scales of blocks; a scale for each row has one column.
  const bool by_column = suffix == "weight" || (suffix == "weight_scale" &&
                                                stored.shape().size() == 2 && stored.dim(1) > 1);
  if (by_column) return take(stored, 1, in_proportion(stored.dim(1)));
  return stored;  // scales and zero points of gptq's groups, and the scales of a whole tensor
}

}  // namespace

AttentionConfig device_config(const AttentionConfig& config, const DeviceHeads& heads) {
  AttentionConfig device = config;
  if (device.variant == Variant::kTensorParallel || device.variant == Variant::kDataParallel) {
    device.variant = Variant::kAttentionWithRope;
  }
  device.num_devices = 1;
  device.kv_head_replication = false;
  device.num_attention_heads = heads.q_heads.count;
  device.num_key_value_heads = heads.kv_heads.count;
  if (has_fp8_blocks(config)) {
    std::int64_t& block = device.quant->block_n;
    for (const char* projection : {"q_proj", "k_proj", "v_proj"}) {
      const Range rows = rows_of(projection, config, heads);
      block = std::gcd(block, std::gcd(rows.first, rows.count));
    }
  }
  return device;
}

LayerWeights take_head_weights(const AttentionConfig& config, const LayerWeights& weights,
                               const DeviceHeads& heads, const AttentionConfig& device) {
  LayerWeights part;
  for (const auto& [name, stored] : weights) {
    const std::size_t dot = name.find('.');
    const std::string owner = name.substr(0, dot);
    if (owner == "o_proj") continue;
    if (name == "sinks") {
      part[name] = take(stored, 0, heads.q_heads);
    } else if (owner == "qkv_proj") {
      part[name] = take_stacked_rows(config, stored, heads);
    } else if (owner.ends_with("_proj")) {
      part[name] = take_rows(config, owner, name.substr(dot + 1), stored, heads, device);
    } else {
      part[name] = stored;  // norms
    }
  }
  return part;
}

LayerWeights take_output_weights(const AttentionConfig& config, const LayerWeights& weights,
                                 const DeviceHeads& heads, const AttentionConfig& device) {
  const std::string prefix = "o_proj.";
  const Range columns{heads.q_heads.first * config.head_dim_v,
                      heads.q_heads.count * config.head_dim_v};
  LayerWeights part;
  for (const auto& [name, stored] : weights) {
    if (!name.starts_with(prefix)) continue;
    part[name] = take_columns(config, name.substr(prefix.size()), stored, columns, device);
  }
  return part;
}

KvCache take_kv_heads(const KvCache& cache, Range kv_heads) {
  KvCache part = cache;
  part.k = take(cache.k, 3, kv_heads);
  part.v = take(cache.v, 3, kv_heads);
  for (Tensor* scale : {&part.k_scale, &part.v_scale}) {
    if (!scale->shape().empty()) *scale = take(*scale, scale->shape().size() - 1, kv_heads);
  }
  return part;
}

void put_kv_heads(KvCache& whole, Range kv_heads, const KvCache& part) {
  put(whole.k, 3, kv_heads.first, part.k);
  put(whole.v, 3, kv_heads.first, part.v);
  if (whole.k_scale.shape().size() > 1) {  // a scale for each token: the call writes new ones
    put(whole.k_scale, 3, kv_heads.first, part.k_scale);
    put(whole.v_scale, 3, kv_heads.first, part.v_scale);
  }
}

}  // namespace attn::reference
