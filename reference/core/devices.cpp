#include "reference/core/devices.h"

#include <algorithm>

namespace attn {

Range shard_range(std::int64_t n, std::int64_t i, std::int64_t devices) {
  const std::int64_t each = n / devices;
  const std::int64_t longer = n % devices;
  return {i * each + std::min(i, longer), each + (i < longer ? 1 : 0)};
}

std::vector<DeviceHeads> device_heads(const AttentionConfig& config) {
  const std::int64_t devices = config.variant == Variant::kTensorParallel ? config.num_devices : 1;
  const std::int64_t kv_heads = config.num_key_value_heads;
  const std::int64_t group = config.group_size();
  std::vector<DeviceHeads> all;
  for (std::int64_t i = 0; i < devices; ++i) {
    if (devices <= kv_heads) {
      const Range kv = shard_range(kv_heads, i, devices);
      all.push_back({{kv.first * group, kv.count * group}, kv});
    } else {
      const std::int64_t copies = devices / kv_heads;
      const std::int64_t head = i / copies;
      const Range q = shard_range(group, i % copies, copies);
      all.push_back({{head * group + q.first, q.count}, {head, 1}});
    }
  }
  return all;
}

}  // namespace attn
