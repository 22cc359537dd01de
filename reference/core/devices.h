#pragma once

#include <cstdint>
#include <vector>

#include "reference/core/config.h"

namespace attn {

/// Consecutive items first .. first+count-1.
struct Range {
  std::int64_t first = 0;
  std::int64_t count = 0;

  friend bool operator==(const Range&, const Range&) = default;
};

/// The shard rule: n items dealt to `devices` devices in order, each n / devices of them and the
/// first n % devices one more. The part of device i.
Range shard_range(std::int64_t n, std::int64_t i, std::int64_t devices);

/// The heads of one device. Its columns of o_proj's input are q_heads times head_dim_v.
struct DeviceHeads {
  Range q_heads;
  Range kv_heads;

  friend bool operator==(const DeviceHeads&, const DeviceHeads&) = default;
};

/// The heads of each device of a tensor_parallel layer; one device with all of them for every other
/// variant. Whole groups of query heads with their kv head, dealt by the shard rule over the kv
/// heads. With more devices than kv heads (kv_head_replication) device i holds kv head
/// i / (num_devices / Hkv), and the query heads of a kv head are dealt to the devices that hold it;
/// when there are fewer of them than such devices, the last ones hold no query head. `config` is
/// valid.
std::vector<DeviceHeads> device_heads(const AttentionConfig& config);

}  // namespace attn
