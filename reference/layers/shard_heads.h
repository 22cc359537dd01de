#pragma once

#include "reference/core/case.h"
#include "reference/core/devices.h"

namespace attn::reference {

/// One device's part of a layer: its heads, and what goes with them.

/// The weights of q, k and v, biases and sinks of these heads, as stored; norms and scales of a
/// whole tensor are copied. Without o_proj, whose columns follow the heads: see shard(). Scales of
/// fp8 blocks that the cut would split are repeated over blocks of `device.quant->block_n` rows,
/// which is what device_config gives.
LayerWeights take_head_weights(const AttentionConfig& config, const LayerWeights& weights,
                               const DeviceHeads& heads);

/// The layer of one device: `heads` of `config`, as a layer of its own that is not parallel.
AttentionConfig device_config(const AttentionConfig& config, const DeviceHeads& heads);

/// The kv heads of one device of every page of a pool, and their scales.
KvCache take_kv_heads(const KvCache& cache, Range kv_heads);

/// Writes a device's pool back over its kv heads of the whole one.
void put_kv_heads(KvCache& whole, Range kv_heads, const KvCache& part);

}  // namespace attn::reference
