// Which heads each device of a tensor_parallel layer holds.

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "reference/core/devices.h"

namespace attn {
namespace {

std::vector<DeviceHeads> heads_of(std::int64_t q_heads, std::int64_t kv_heads, std::int64_t devices,
                                  Variant variant = Variant::kTensorParallel) {
  AttentionConfig config;
  config.variant = variant;
  config.num_attention_heads = q_heads;
  config.num_key_value_heads = kv_heads;
  config.num_devices = devices;
  config.kv_head_replication = devices > kv_heads;
  return device_heads(config);
}

using Heads = std::vector<DeviceHeads>;

TEST(ShardRange, FirstDevicesGetOneMore) {
  // 7 = 3 + 2 + 2, 2 = 1 + 1 + 0.
  EXPECT_EQ(shard_range(7, 0, 3), (Range{0, 3}));
  EXPECT_EQ(shard_range(7, 1, 3), (Range{3, 2}));
  EXPECT_EQ(shard_range(7, 2, 3), (Range{5, 2}));
  EXPECT_EQ(shard_range(2, 2, 3), (Range{2, 0}));
}

TEST(DeviceHeads, WholeGroups) {
  EXPECT_EQ(heads_of(8, 4, 2), (Heads{{{0, 4}, {0, 2}}, {{4, 4}, {2, 2}}}));
  EXPECT_EQ(heads_of(6, 3, 2), (Heads{{{0, 4}, {0, 2}}, {{4, 2}, {2, 1}}}));
  EXPECT_EQ(heads_of(3, 3, 2), (Heads{{{0, 2}, {0, 2}}, {{2, 1}, {2, 1}}}));
}

TEST(DeviceHeads, OnlyTensorParallelSplitsHeads) {
  EXPECT_EQ(heads_of(8, 4, 2, Variant::kDataParallel), (Heads{{{0, 8}, {0, 4}}}));
}

TEST(DeviceHeads, ReplicatedKvHeads) {
  // 2 kv heads of 3 query heads on 4 devices: kv head 0 on devices 0 and 1.
  EXPECT_EQ(heads_of(6, 2, 4),
            (Heads{{{0, 2}, {0, 1}}, {{2, 1}, {0, 1}}, {{3, 2}, {1, 1}}, {{5, 1}, {1, 1}}}));
  // One query head for two devices: the second holds none.
  EXPECT_EQ(heads_of(1, 1, 2), (Heads{{{0, 1}, {0, 1}}, {{1, 0}, {0, 1}}}));
}

}  // namespace
}  // namespace attn
