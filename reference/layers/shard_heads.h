#pragma once

#include "reference/core/case.h"
#include "reference/core/devices.h"

namespace attn::reference {

/// The layer of one device: `heads` of `config`, as a layer of its own that is not parallel. fp8
/// blocks that the rows of q, k or v would split become less high.
AttentionConfig device_config(const AttentionConfig& config, const DeviceHeads& heads);

/// The weights of q, k and v, biases and sinks of these heads, as stored; norms and the scales of
/// whole tensors are copied. `device` is device_config's, or has less wide fp8 blocks as well.
/// Without o_proj, whose columns follow the heads.
LayerWeights take_head_weights(const AttentionConfig& config, const LayerWeights& weights,
                               const DeviceHeads& heads, const AttentionConfig& device);

/// The columns of o_proj that multiply these heads' outputs, and their scales. They fall on whole
/// blocks of the encoding; `device` has the fp8 blocks to use.
LayerWeights take_output_weights(const AttentionConfig& config, const LayerWeights& weights,
                                 const DeviceHeads& heads, const AttentionConfig& device);

/// The kv heads of one device of every page of a pool, and their scales.
KvCache take_kv_heads(const KvCache& cache, Range kv_heads);

/// Writes a device's pool back over its kv heads of the whole one.
void put_kv_heads(KvCache& whole, Range kv_heads, const KvCache& part);

}  // namespace attn::reference
