// How calls are cut into blocks: host code, tested without a device.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <vector>

#include "gpu/device/messages.h"
#include "gpu/kernels/attention.h"
#include "gpu/kernels/attention_decode_lean.h"
#include "gpu/kernels/prefill_shape.h"
#include "gpu/layers/layer.h"

namespace attn::gpu {
namespace {

constexpr int kMultiprocessors = 132;

AttentionShape shape(std::int64_t heads, std::int64_t kv_heads, std::int64_t head_dim = 128) {
  AttentionShape s;
  s.num_heads = heads;
  s.num_kv_heads = kv_heads;
  s.head_dim = head_dim;
  s.multiprocessors = kMultiprocessors;
  s.clusters = true;
  return s;
}

AttentionPlan plan(std::int64_t batch, std::int64_t rows, std::int64_t keys, std::int64_t heads,
                   std::int64_t kv_heads, std::int64_t head_dim = 128, int fixed = 0) {
  AttentionShape s = shape(heads, kv_heads, head_dim);
  s.fixed_splits = fixed;
  return plan_attention(s, batch, rows, keys);
}

AttentionPlan coded_plan(std::int64_t batch, std::int64_t keys, std::int64_t heads,
                         std::int64_t kv_heads) {
  AttentionShape s = shape(heads, kv_heads);
  s.coded = true;
  return plan_attention(s, batch, 1, keys);
}

TEST(AttentionPlan, DecodesUpToSixteenPackedRows) {
  EXPECT_TRUE(plan(1, 1, 8192, 32, 8).decode);
  EXPECT_TRUE(plan(1, 4, 8192, 32, 8).decode);   // 4 queries x group of 4
  EXPECT_FALSE(plan(1, 5, 8192, 32, 8).decode);  // 20 rows
  EXPECT_TRUE(plan(1, 1, 8192, 16, 1).decode);   // a group of 16
  EXPECT_FALSE(plan(1, 1, 8192, 17, 1).decode);
}

TEST(AttentionPlan, TilesCoverEveryPackedRow) {
  for (const std::int64_t head_dim : {16, 64, 128, 160, 256}) {
    for (const std::int64_t rows : {5, 31, 32, 33, 4096}) {
      const AttentionPlan p = plan(2, rows, 5000, 32, 8, head_dim);
      EXPECT_GE(p.row_tiles * prefill_rows(static_cast<int>(head_dim), p.small_tiles), rows * 4);
      EXPECT_LT((p.row_tiles - 1) * prefill_rows(static_cast<int>(head_dim), p.small_tiles),
                rows * 4);
    }
  }
}

TEST(AttentionPlan, TakesSmallTilesWhereLargeOnesWouldIdle) {
  EXPECT_TRUE(plan(1, 512, 512, 32, 8).small_tiles);     // 64 blocks of 256 rows
  EXPECT_FALSE(plan(1, 4096, 4096, 32, 8).small_tiles);  // 512 of them
  EXPECT_TRUE(plan(256, 16, 8192, 32, 8).small_tiles);   // 64 packed rows a sequence
  EXPECT_FALSE(plan(256, 17, 8192, 32, 8).small_tiles);
}

TEST(AttentionPlan, SplitsOnlyWhatDoesNotFillTheDevice) {
  // 8 items on 132 multiprocessors: as many parts as fit in one wave.
  EXPECT_EQ(plan(1, 1, 1 << 20, 32, 8).splits, 132 / 8);
  EXPECT_EQ(plan(1, 1, 8192, 32, 8).splits, 16);
  // 33 parts of whole rounds would leave one without any.
  EXPECT_EQ(plan(4, 1, 32768, 8, 1).splits, 32);
  EXPECT_EQ(plan(16, 1, 8192, 32, 8).splits, 1);  // 128 items
  // 72 items would leave half of the multiprocessors idle.
  EXPECT_EQ(plan(9, 1, 8192, 32, 8).splits, 3);
  EXPECT_GT(coded_plan(9, 8192, 32, 8).splits, 1);
  EXPECT_EQ(coded_plan(16, 8192, 32, 8).splits, 2);  // two blocks a multiprocessor
  EXPECT_EQ(plan(64, 1, 8192, 32, 8).splits, 1);     // 512 items
  EXPECT_EQ(plan(1, 16384, 16384, 32, 8).splits, 1);
  EXPECT_EQ(plan(1, 1, 100, 32, 8).splits, 1);  // too few keys to be worth it
  EXPECT_LE(plan(1, 1, 1 << 20, 8, 1).splits, kMostSplits);
}

TEST(AttentionPlan, NoPartOfTheLongestSequenceIsEmpty) {
  for (const std::int64_t batch : {1, 2, 3, 5, 9, 17, 33}) {
    for (const std::int64_t keys : {1, 100, 129, 500, 1000, 2048, 5000, 8192, 33333}) {
      const AttentionPlan p = plan(batch, 1, keys, 16, 2);
      const std::int64_t rounds = (keys + 127) / 128;  // of eight warps
      const std::int64_t each = (rounds + p.splits - 1) / p.splits;
      EXPECT_LT((p.splits - 1) * each, rounds) << batch << " " << keys;
    }
  }
}

TEST(AttentionPlan, ShortRowsAreSplitOverClusters) {
  EXPECT_TRUE(plan(1, 1, 2048, 32, 8).way.mail);
  const AttentionPlan p = plan(1, 1, 2047, 32, 8);
  EXPECT_TRUE(p.cluster);
  EXPECT_EQ(p.splits, kMostCluster);
  EXPECT_TRUE(combines_in_kernel(p));
  EXPECT_EQ(partial_floats(p, 1, 32, 128), 0);
  EXPECT_FALSE(plan(1, 1, 8192, 32, 8).cluster);          // too few blocks
  EXPECT_FALSE(plan(1, 1, 2047, 32, 8, 128, 4).cluster);  // fixed: the same everywhere
  AttentionShape s = shape(32, 8);
  s.clusters = false;
  EXPECT_FALSE(plan_attention(s, 1, 1, 2047).cluster);
}

/// Its splits are chosen, and are clusters, as if there were no mail.
TEST(AttentionPlan, TheGeneralKernelHasNoMail) {
  AttentionShape s = shape(32, 8);
  s.decode = decode_way("general");
  AttentionShape lean = shape(32, 8);
  lean.decode = decode_way("lean");
  for (const std::int64_t keys : {2048, 3000, 8192, 100'000}) {
    const AttentionPlan p = plan_attention(s, 1, 1, keys);
    EXPECT_FALSE(p.way.mail) << keys;
    EXPECT_FALSE(plan(1, 2, keys, 32, 8).way.mail) << keys;
    EXPECT_FALSE(plan(1, 1, keys, 32, 8, 64).way.mail) << keys;
    const AttentionPlan same = plan_attention(lean, 1, 1, keys);
    EXPECT_EQ(p.splits, same.splits) << keys;
    EXPECT_EQ(p.cluster, same.cluster) << keys;
  }
  EXPECT_TRUE(plan_attention(s, 1, 1, 3000).cluster);
}

TEST(AttentionPlan, WhatKeepsTheLeanKernelFromALayer) {
  AttentionConfig config;
  config.head_dim = config.head_dim_v = 128;
  config.kv_cache.page_size = 64;
  EXPECT_TRUE(may_decode_lean(config));
  const auto with = [&](auto change) {
    AttentionConfig changed = config;
    change(changed);
    return may_decode_lean(changed);
  };
  EXPECT_TRUE(with([](auto& c) { c.mask.variant = MaskVariant::kNull; }));
  EXPECT_TRUE(with([](auto& c) { c.kv_cache.dtype = ElementType::kFloat8E4M3FN; }));
  EXPECT_FALSE(with([](auto& c) { c.mask.variant = MaskVariant::kSlidingWindowCausal; }));
  EXPECT_FALSE(with([](auto& c) { c.mask.align = MaskAlign::kTopLeft; }));
  EXPECT_FALSE(with([](auto& c) { c.logit_softcap = 20.0; }));
  EXPECT_FALSE(with([](auto& c) { c.scale = -0.1; }));
  EXPECT_FALSE(with([](auto& c) { c.head_dim = c.head_dim_v = 64; }));
  EXPECT_FALSE(with([](auto& c) { c.kv_cache.page_size = 24; }));
  EXPECT_FALSE(with([](auto& c) { c.kv_cache.page_size = 8; }));
  EXPECT_FALSE(with([](auto& c) {
    c.kv_cache.dtype = ElementType::kFloat8E4M3FN;
    c.kv_cache.scale_granularity = ScaleGranularity::kTokenHead;
  }));
}

/// What splits leave each other has its place.
TEST(AttentionPlan, MailHasItsPlace) {
  AttentionShape s = shape(32, 8);
  s.decode = decode_way("lean-mail");
  int mailed = 0;
  for (const std::int64_t batch : {1, 2, 3, 5, 8, 16, 17, 64, 400}) {
    for (const std::int64_t keys : {1, 200, 2048, 8192, 9000, 131'072}) {
      const AttentionPlan p = plan_attention(s, batch, 1, keys);
      EXPECT_TRUE(p.way.lean);
      if (!p.way.mail) continue;
      ++mailed;
      EXPECT_GT(p.splits, 1);
      EXPECT_FALSE(p.cluster);
      EXPECT_LE(p.decode_items * p.splits, 2 * kMultiprocessors);
      EXPECT_LE(p.splits, kMostMailed);
      const std::int64_t share = (4 * kLeanHeadDim / 4 + p.splits - 1) / p.splits;
      EXPECT_LE(6 * p.decode_items * p.splits * p.splits * share, mail_floats(s));
    }
  }
  EXPECT_GT(mailed, 12);
  EXPECT_EQ(plan_attention(s, 1, 1, 2048).splits, 16);
  EXPECT_FALSE(plan_attention(s, 1, 2, 8192).way.lean);  // two queries
  s.fixed_splits = 3;
  EXPECT_FALSE(plan_attention(s, 1, 1, 8192).way.lean);
  s = shape(32, 8);
  s.decode = decode_way("lean");
  EXPECT_EQ(mail_floats(s), 0);
  EXPECT_TRUE(plan_attention(s, 1, 1, 2048).cluster);
  EXPECT_FALSE(plan_attention(s, 16, 1, 8192).way.two_blocks);
  EXPECT_TRUE(plan_attention(s, 64, 1, 2048).way.two_blocks);
  s.decode = decode_way("general");
  EXPECT_FALSE(plan_attention(s, 1, 1, 2048).way.lean);
}

/// In any order of starts and ends: each share once, nobody waits for a block that has not started,
/// and the word is zero when all have ended.
TEST(MailDuty, EachShareIsAddedUpOnce) {
  std::mt19937 random(1);
  for (int round = 0; round < 3000; ++round) {
    const int splits = 2 + static_cast<int>(random() % (round % 3 == 0 ? 55 : 4));
    std::uint64_t word = 0;
    std::vector<std::uint64_t> at_start(static_cast<std::size_t>(splits), 0);
    std::vector<int> state(static_cast<std::size_t>(splits), 0);
    std::vector<int> added(static_cast<std::size_t>(splits), 0);
    int started = 0;
    int ended = 0;
    while (ended < splits) {
      const auto i = static_cast<std::size_t>(random() % static_cast<unsigned>(splits));
      const int split = static_cast<int>(i);
      if (state[i] == 0) {
        at_start[i] = word++;
        ++started;
      } else if (state[i] == 1) {
        const MailDuty duty = mail_duty(splits, split, at_start[i], word);
        word += mail_bit(split);
        ++ended;
        EXPECT_TRUE(!(duty.own || duty.left != 0) || started == splits);
        if (duty.own) ++added[i];
        for (std::size_t j = 0; j < added.size(); ++j) added[j] += duty.left >> j & 1 ? 1 : 0;
        EXPECT_EQ(duty.last, ended == splits);
      }
      state[i] = std::min(state[i] + 1, 2);
    }
    EXPECT_EQ(added, std::vector<int>(static_cast<std::size_t>(splits), 1));
  }
}

TEST(AttentionPlan, FixedSplitsTakeTheSameKernelForEveryLength) {
  EXPECT_EQ(plan(1, 1, 8192, 32, 8).decode_rows, 8);
  EXPECT_EQ(plan(1, 3, 8192, 32, 8).decode_rows, 16);
  for (const std::int64_t rows : {1, 2, 3, 4}) {
    EXPECT_EQ(plan(1, rows, 8192, 32, 8, 128, 2).decode_rows, 16) << rows;
  }
}

TEST(AttentionPlan, FixedSplitsDoNotDependOnTheBatch) {
  for (const std::int64_t batch : {1, 7, 300}) {
    EXPECT_EQ(plan(batch, 1, 8192, 32, 8, 128, 5).splits, 5);
  }
}

TEST(AttentionPlan, PartialsHoldOutputsMaximaAndSums) {
  const AttentionPlan p = plan(2, 1, 8192, 32, 8, 128, 3);
  EXPECT_EQ(partial_floats(p, 2, 32, 128), 3 * 2 * 32 * (128 + 2));
  EXPECT_EQ(partial_floats(plan(1, 1, 100, 32, 8), 1, 32, 128), 0);
}

TEST(DeviceMessages, NameWhatIsMissingAndWhatToTry) {
  EXPECT_EQ(no_code_message("NVIDIA T4", 7, 5, "cudaErrorNoKernelImageForDevice"),
            "NVIDIA T4 has compute capability 7.5, for which this build holds no code "
            "(cudaErrorNoKernelImageForDevice); configure with -DCMAKE_CUDA_ARCHITECTURES=75");
  EXPECT_EQ(out_of_memory_message(1000, 10, 100),
            "cuda: out of memory: 1000 bytes wanted, 10 of 100 free; try a smaller batch or fewer "
            "keys");
}

TEST(TensorCoreKernel, TakesWhatFitsItsRows) {
  const auto takes = [](std::int64_t d, std::int64_t dv) {
    return has_tensor_core_kernel(Type::kBFloat16, Type::kBFloat16, d, dv);
  };
  for (const std::int64_t d : {16, 24, 40, 64, 72, 80, 96, 112, 128, 192, 256}) {
    EXPECT_TRUE(takes(d, d)) << d;
  }
  EXPECT_TRUE(takes(192, 128));
  EXPECT_FALSE(takes(20, 20));    // rows that do not start at 16 bytes
  EXPECT_FALSE(takes(576, 512));  // beyond 256
  EXPECT_FALSE(has_tensor_core_kernel(Type::kFloat32, Type::kFloat32, 64, 64));
  EXPECT_FALSE(has_tensor_core_kernel(Type::kFloat16, Type::kBFloat16, 64, 64));
  EXPECT_TRUE(has_tensor_core_kernel(Type::kFloat16, Type::kFloat8E4M3, 72, 72));
  EXPECT_FALSE(has_tensor_core_kernel(Type::kFloat32, Type::kFloat8E4M3, 64, 64));
}

TEST(TensorCoreKernel, ProbabilitiesThatCarryScalesNeedTheirRange) {
  constexpr Type kCode = Type::kFloat8E4M3;
  for (const Type type : {Type::kBFloat16, Type::kFloat16}) {
    EXPECT_EQ(probability_type(type, type, CacheScales::kNone), type);
    EXPECT_EQ(probability_type(type, kCode, CacheScales::kHead), Type::kFloat16);
    EXPECT_EQ(probability_type(type, kCode, CacheScales::kTokenHead), Type::kBFloat16);
  }
}

}  // namespace
}  // namespace attn::gpu
