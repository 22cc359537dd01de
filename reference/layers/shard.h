#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "reference/core/case.h"

namespace attn::reference {

/// What a device gets of a layer: some of its heads, or all of it.
enum class ShardingStrategy { kTensorParallel, kReplicate };

/// "tensor_parallel" or "replicate". Throws Error(kConfig), field sharding_strategy, for any other.
ShardingStrategy parse_sharding_strategy(std::string_view name);
std::string_view name_of(ShardingStrategy strategy);

/// A layer as it is described and stored.
struct Layer {
  AttentionConfig config;
  LayerWeights weights;
  std::optional<ShardingStrategy> sharding_strategy;

  void set_sharding_strategy(std::string_view name) {
    sharding_strategy = parse_sharding_strategy(name);
  }
};

/// The layer of each device. replicate: full copies. tensor_parallel: the heads of
/// device_heads (config with `num_devices` devices) with their rows of q, k and v, their columns of
/// o_proj, biases, sinks, and the scales that belong to them; norms and scales of whole tensors are
/// copied. Every weight keeps its value: fp8 blocks and gptq groups that a cut would split become
/// smaller. The shards are layers of their own, without a strategy; the sum of their outputs is
/// the whole layer's.
///
/// Throws Error(kConfig): before a strategy is set (rule 15a); for device counts that rules 8
/// refuse or that leave a device without a query head; where a column cut would split a block of an
/// encoding whose blocks have one size (nvfp4, mxfp4, mxfp8, gguf, fp8 blocks with block
/// activations), which only the evaluation of the whole layer can do; and for weights that the
/// config does not have.
std::vector<Layer> shard(const Layer& layer, std::int64_t num_devices);

}  // namespace attn::reference
