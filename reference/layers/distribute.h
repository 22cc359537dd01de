#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "reference/core/case.h"
#include "reference/layers/shard.h"

namespace attn::reference {

/// `value` copied to each of `devices`, in their order: same type, shape and bits, nothing scaled
/// or split. Devices may be named twice; no devices give no copies.
std::vector<Tensor> distribute_value(const Tensor& value, std::span<const std::int64_t> devices);

/// What the layers of more than one device are called with: lists with one entry for each device.
struct DeviceInputs {
  std::vector<Tensor> xs;                 ///< [tokens, hidden_size]
  std::vector<Tensor> input_row_offsets;  ///< [batch + 1] uint32, from 0
  std::vector<Tensor> cache_lengths;      ///< [batch] uint32
  std::vector<Tensor> freqs_cis;          ///< [positions, rotary_dim] float32
  std::vector<KvCache> kv_collections;    ///< with the device's own kv heads or sequences
};

/// One case for each device of a parallel layer: its shard and its entry of every list. Throws
/// Error(kConfig), rule 15c, for a list whose length is not the number of shards.
std::vector<Case> device_cases(std::span<const Layer> shards, const DeviceInputs& inputs);

}  // namespace attn::reference
