#include "reference/layers/shard_heads.h"

#include <numeric>
#include <string>

#include "reference/layers/shard_axis.h"

namespace attn::reference {
namespace {

bool has_fp8_blocks(const AttentionConfig& config) {
  return config.quant && config.quant->q_proj == QuantEncoding::kFloat8E4M3FN &&
         config.quant->weight_granularity == WeightGranularity::kBlock;
}

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

/// Rows `rows` of one scale for every block_n rows, as one for every `finer` rows. `finer` divides
/// block_n and the range.
Tensor take_block_rows(const Tensor& scale, Range rows, std::int64_t block_n, std::int64_t finer) {
  const std::int64_t columns = scale.dim(1);
  Tensor part(scale.type(), {rows.count / finer, columns});
  for (std::int64_t i = 0; i < part.dim(0); ++i) {
    put(part, 0, i, take(scale, 0, {(rows.first + i * finer) / block_n, 1}));
  }
  return part;
}

/// Zero points of output rows `rows`, packed along the rows like `stored` [groups, words].
Tensor take_packed_columns(const Tensor& stored, Range rows, std::int64_t bits) {
  const std::int64_t per_word = 32 / bits;
  const std::uint64_t mask = (std::uint64_t{1} << bits) - 1;
  Tensor part(stored.type(), {stored.dim(0), (rows.count + per_word - 1) / per_word});
  for (std::int64_t g = 0; g < stored.dim(0); ++g) {
    for (std::int64_t n = 0; n < rows.count; ++n) {
      const std::int64_t from = rows.first + n;
      const std::uint64_t word = stored.code(g * stored.dim(1) + from / per_word);
      const std::uint64_t zero = (word >> (from % per_word * bits)) & mask;
      const std::int64_t to = g * part.dim(1) + n / per_word;
      part.set_code(to, part.code(to) | (zero << (n % per_word * bits)));
    }
  }
  return part;
}

/// Tensor "projection.suffix" of q, k or v cut to the device's rows.
Tensor take_projection(const AttentionConfig& config, const std::string& projection,
                       const std::string& suffix, const Tensor& stored, const DeviceHeads& heads) {
  const Range rows = rows_of(projection, config, heads);
  if (suffix == "weight" || suffix == "bias") return take(stored, 0, rows);
  if (suffix == "qweight" || suffix == "scales") return take(stored, 1, rows);
  if (suffix == "qzeros") return take_packed_columns(stored, rows, config.quant->bits);
  if (suffix == "weight_scale" && !stored.shape().empty()) {
    if (!has_fp8_blocks(config)) return take(stored, 0, rows);
    const std::int64_t finer = device_config(config, heads).quant->block_n;
    return take_block_rows(stored, rows, config.quant->block_n, finer);
  }
  return stored;  // g_idx, and the scales of a whole tensor
}

}  // namespace

AttentionConfig device_config(const AttentionConfig& config, const DeviceHeads& heads) {
  AttentionConfig device = config;
  if (device.variant == Variant::kTensorParallel) device.variant = Variant::kAttentionWithRope;
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
                               const DeviceHeads& heads) {
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
      part[name] = take_projection(config, owner, name.substr(dot + 1), stored, heads);
    } else {
      part[name] = stored;  // norms
    }
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
