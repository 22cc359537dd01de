#include "reference/layers/shard.h"

#include <algorithm>
#include <numeric>
#include <string>

#include "reference/core/devices.h"
#include "reference/core/error.h"
#include "reference/core/quant_internal.h"
#include "reference/core/rules.h"
#include "reference/layers/shard_blocks.h"
#include "reference/layers/shard_gptq.h"
#include "reference/layers/shard_heads.h"

namespace attn::reference {
namespace {

bool is_gptq(const AttentionConfig& config) {
  return config.quant && config.quant->q_proj == QuantEncoding::kGptq;
}

[[noreturn]] void refuse(const std::string& field, const std::string& value,
                         const std::string& text) {
  throw Error(ErrorKind::kConfig, field + " = " + value + ": " + text, field);
}

/// The stored tensors have the config's shapes and types: the cuts rely on them.
void check_weights(const AttentionConfig& config, const LayerWeights& weights) {
  std::vector<std::string> known;
  for (const TensorSpec& spec : expected_weights(config)) {
    known.push_back(spec.name);
    const auto found = weights.find(spec.name);
    if (found == weights.end()) {
      if (spec.optional) continue;
      refuse("weights/" + spec.name, "nothing",
             "the config needs " + to_string(spec.shape) + "; add it");
    }
    const Tensor& tensor = found->second;
    if (tensor.shape() != spec.shape || std::ranges::count(spec.types, tensor.type()) == 0) {
      refuse("weights/" + spec.name,
             std::string(element_name(tensor.type())) + " " + to_string(tensor.shape()),
             "the config needs " + std::string(element_name(spec.types.front())) + " " +
                 to_string(spec.shape) + "; store it so");
    }
  }
  for (const auto& [name, tensor] : weights) {
    if (std::ranges::count(known, name) == 0) {
      refuse("weights/" + name, to_string(tensor.shape()),
             "the config has no weight of this name" + hint(name, known));
    }
  }
}

/// g_idx names a group of the scales: regrouping looks them up.
void check_groups(const AttentionConfig& config, const LayerWeights& weights) {
  if (!is_gptq(config)) return;
  for (const Projection& p : projections_of(config)) {
    const auto g_idx = weights.find(std::string(p.name) + ".g_idx");
    if (g_idx == weights.end()) continue;
    for (const char* suffix : {".scales", ".qzeros"}) {  // of a projection that is not needed
      const std::string name = std::string(p.name) + suffix;
      if (weights.count(name) == 0)
        refuse("weights/" + name, "nothing", "its g_idx is there; add it");
    }
    const std::int64_t groups = weights.at(std::string(p.name) + ".scales").dim(0);
    for (const double group : g_idx->second.values()) {
      if (group >= 0 && group < static_cast<double>(groups)) continue;
      refuse("weights/" + g_idx->first, std::to_string(static_cast<std::int64_t>(group)),
             "must be below the number of groups, " + std::to_string(groups) +
                 "; repair the checkpoint");
    }
  }
}

/// Columns of o_proj that are stored together and cannot be told apart in smaller blocks.
std::int64_t indivisible_columns(const AttentionConfig& config) {
  if (!config.quant) return 1;
  const QuantConfig& quant = *config.quant;
  if (has_fp8_blocks(config)) {
    // Activations are rounded by 128 columns, and the weight's blocks are as wide.
    return quant.activation == ActivationQuant::kBlock ? quant.block_k : 1;
  }
  return std::max(scale_block(quant.o_proj), gguf_block(quant.o_proj).elements);
}

/// The largest block that starts and ends where these columns do. The last block of a row may be
/// short, so the end of the row is no edge.
std::int64_t common_block(const AttentionConfig& whole, Range columns, std::int64_t block) {
  const std::int64_t end = columns.first + columns.count;
  return std::gcd(block, std::gcd(columns.first, end == whole.attn_width() ? 0 : end));
}

void check_cut(const AttentionConfig& whole, std::int64_t device, Range columns) {
  const std::string field = "num_devices";
  const std::string value = std::to_string(whole.num_devices);
  const std::string who = "device " + std::to_string(device);
  if (columns.count == 0) {
    refuse(field, value,
           who + " would hold no query head; use at most num_attention_heads = " +
               std::to_string(whole.num_attention_heads) + " devices");
  }
  const std::int64_t block = indivisible_columns(whole);
  if (common_block(whole, columns, block) != block) {
    refuse(field, value,
           who + " would hold columns " + std::to_string(columns.first) + " .. " +
               std::to_string(columns.first + columns.count - 1) +
               " of o_proj, which cut a block of " + std::to_string(block) + " columns (" +
               std::string(name_of(whole.quant->o_proj)) +
               "); use a device count that gives each a multiple of " + std::to_string(block));
  }
}

/// Smaller fp8 blocks and gptq groups where the device's columns of o_proj would split them.
AttentionConfig fit_blocks(const Layer& layer, const DeviceHeads& heads, Range columns) {
  AttentionConfig device = device_config(layer.config, heads);
  if (has_fp8_blocks(device)) {
    std::int64_t& width = device.quant->block_k;
    width = common_block(layer.config, columns, width);
  }
  const auto g_idx = layer.weights.find("o_proj.g_idx");
  if (is_gptq(device) && g_idx != layer.weights.end()) {
    device.quant->group_size = gptq_group_size(g_idx->second, columns, *device.quant);
  }
  return device;
}

Layer shard_of_device(const Layer& layer, const DeviceHeads& heads, Range columns) {
  Layer part;
  part.config = fit_blocks(layer, heads, columns);
  part.weights = take_head_weights(layer.config, layer.weights, heads, part.config);
  part.weights.merge(take_output_weights(layer.config, layer.weights, heads, part.config));
  for (const Projection& p : projections_of(part.config)) {
    if (part.weights.count(std::string(p.name) + ".g_idx") != 0) {
      regroup(part.weights, std::string(p.name), part.config.quant->group_size);
    }
  }
  return part;
}

}  // namespace

ShardingStrategy parse_sharding_strategy(std::string_view name) {
  check_sharding_strategy(name);
  return name == "replicate" ? ShardingStrategy::kReplicate : ShardingStrategy::kTensorParallel;
}

std::string_view name_of(ShardingStrategy strategy) {
  return strategy == ShardingStrategy::kReplicate ? "replicate" : "tensor_parallel";
}

std::vector<Layer> shard(const Layer& layer, std::int64_t num_devices) {
  check_sharding_strategy(layer.sharding_strategy ? name_of(*layer.sharding_strategy) : "");
  const bool replicate = *layer.sharding_strategy == ShardingStrategy::kReplicate;
  AttentionConfig whole = layer.config;
  whole.num_devices = num_devices;
  whole.variant = replicate ? Variant::kDataParallel : Variant::kTensorParallel;
  validate(whole);  // the device count, too
  check_weights(layer.config, layer.weights);
  check_groups(layer.config, layer.weights);

  std::vector<Layer> shards;
  if (replicate) {
    shards.assign(static_cast<std::size_t>(num_devices), {layer.config, layer.weights, {}});
    return shards;
  }
  for (const DeviceHeads& heads : device_heads(whole)) {
    const Range columns{heads.q_heads.first * whole.head_dim_v,
                        heads.q_heads.count * whole.head_dim_v};
    check_cut(whole, static_cast<std::int64_t>(shards.size()), columns);
    shards.push_back(shard_of_device(layer, heads, columns));
  }
  return shards;
}

}  // namespace attn::reference
