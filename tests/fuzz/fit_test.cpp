#include "harness/fuzz/fit.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "harness/fuzz/case_source.h"
#include "harness/generate/space.h"

namespace attn::harness {
namespace {

/// A kernel of one type, head size and mask that takes soft-caps and any cache.
bool narrow(const AttentionConfig& config) {
  return config.dtype == ElementType::kBFloat16 && config.head_dim == 128 &&
         config.mask.variant == MaskVariant::kCausal && !config.quant && !config.use_qk_norm;
}

TEST(Fit, TakesAwayWhatIsNotSupportedAndNothingElse) {
  std::int64_t found = 0, kept = 0;
  for (std::int64_t n = 0; n < 100; ++n) {
    const CaseSpec spec = random_case({}, n).spec;
    const auto fit = fitted(spec, narrow);
    if (!fit) continue;
    ++found;
    EXPECT_NO_THROW(validate(*fit));
    EXPECT_TRUE(narrow(fit->config)) << to_json(*fit);
    EXPECT_EQ(fit->rows, spec.rows);
    EXPECT_EQ(fit->sinks, spec.sinks);
    EXPECT_EQ(fit->config.logit_softcap, spec.config.logit_softcap);
    EXPECT_EQ(fit->config.num_key_value_heads, spec.config.num_key_value_heads);
    kept += spec.config.logit_softcap.has_value();
  }
  EXPECT_GT(found, 60);
  EXPECT_GT(kept, 3);
}

TEST(Fit, ASupportedSpecStaysAsItIs) {
  for (std::int64_t n = 0; n < 50; ++n) {
    const CaseSpec spec = random_case({}, n).spec;
    EXPECT_EQ(fitted(spec, [](const AttentionConfig&) { return true; }), spec) << to_json(spec);
  }
}

/// A kernel that reads the cache, with values as wide as keys and head sizes in steps of 8.
bool reads_plainly(const AttentionConfig& config) {
  return config.entry_point != EntryPoint::kMaterializeKvFromHidden &&
         config.dtype == ElementType::kBFloat16 && config.kv_cache.dtype == config.dtype &&
         config.head_dim == config.head_dim_v && config.head_dim % 8 == 0 &&
         !config.logit_softcap && config.mask.variant == MaskVariant::kCausal;
}

TEST(Fit, EveryCaseFitsAKernelOfPlainAttention) {
  std::int64_t writes = 0, wide = 0;
  for (std::int64_t n = 0; n < 400; ++n) {
    const CaseSpec spec = random_case({}, n).spec;
    writes += spec.config.entry_point == EntryPoint::kMaterializeKvFromHidden;
    wide += spec.config.head_dim != spec.config.head_dim_v;
    const auto fit = fitted(spec, reads_plainly);
    ASSERT_TRUE(fit) << to_json(spec);
    EXPECT_TRUE(reads_plainly(fit->config)) << to_json(*fit);
    EXPECT_NO_THROW(validate(*fit));
  }
  EXPECT_GT(writes, 20);
  EXPECT_GT(wide, 20);
}

TEST(Fit, WhatOnlyARunIsAskedOfComesInItsPlainForm) {
  CaseSpec spec = parse_case_spec(
      R"({"config": {"variant": "attention", "entry_point": "attention", "num_attention_heads": 4,
          "num_key_value_heads": 2, "head_dim": 16, "dtype": "bfloat16", "scale": -0.5,
          "mask": {"variant": "sliding_window_causal", "window_size": 3}},
          "rows": [[2, 9], [3, 3]]})");
  spec.sinks = true;
  spec.layout.gap = 1;
  const std::vector<CaseSpec> plainer = plainer_for_a_run(spec);
  const auto count = [&](auto is) { return std::ranges::count_if(plainer, is); };
  ASSERT_EQ(plainer.size(), 13U);
  EXPECT_EQ(plainer[0].layout, MemoryLayout());
  EXPECT_TRUE(plainer[0].sinks);
  EXPECT_EQ(count([](const CaseSpec& s) { return !s.sinks; }), 12);
  const std::vector<RowSpec> square = {{2, 2}, {3, 3}}, single = {{1, 9}, {1, 3}},
                             more_keys = {{2, 9}, {3, 8}}, longer = {{8, 8}, {8, 8}};
  EXPECT_EQ(count([&](const CaseSpec& s) { return s.rows == square; }), 2);
  EXPECT_EQ(count([&](const CaseSpec& s) { return s.rows == single; }), 1);
  EXPECT_EQ(count([&](const CaseSpec& s) { return s.rows == more_keys; }), 3);
  EXPECT_EQ(count([&](const CaseSpec& s) { return s.rows == longer; }), 2);
  EXPECT_EQ(count([](const CaseSpec& s) { return !s.config.scale; }), 5);
  EXPECT_EQ(count([](const CaseSpec& s) { return !s.config.mask.window_size; }), 4);
}

/// A kernel may have none for a sequence of one key, whatever its config; a call before it has half
/// as many.
TEST(Fit, EveryCaseFitsAKernelThatWantsTwoKeysOfASequence) {
  const auto reads_all = [](const CaseSpec& spec) {
    const bool counts_keys = spec.config.starts_at_attention();
    std::vector<RowSpec> rows = other_case(spec, 2).spec.rows;
    rows.insert(rows.end(), spec.rows.begin(), spec.rows.end());
    return std::ranges::none_of(rows, [counts_keys](const RowSpec& row) {
      return (counts_keys ? row.second : row.first + row.second) == 1;
    });
  };
  std::int64_t refused = 0;
  for (std::int64_t n = 0; n < 400; ++n) {
    const auto fit = fitted(random_case({}, n).spec, reads_plainly);
    ASSERT_TRUE(fit);
    if (reads_all(*fit)) continue;
    ++refused;
    EXPECT_TRUE(std::ranges::any_of(plainer_for_a_run(*fit), [&](const CaseSpec& plainer) {
      return plainer.config == fit->config && reads_all(plainer);
    })) << to_json(*fit);
  }
  EXPECT_GT(refused, 20);
}

TEST(Fit, WhatIsPlainIsOnlyTriedWithOneQuery) {
  const CaseSpec spec = parse_case_spec(
      R"({"config": {"variant": "attention", "entry_point": "attention", "num_attention_heads": 4,
          "num_key_value_heads": 2, "head_dim": 16, "mask": {"variant": "null"}}, "rows": [[8, 8]]})");
  const std::vector<CaseSpec> plainer = plainer_for_a_run(spec);
  ASSERT_EQ(plainer.size(), 1U);
  EXPECT_EQ(plainer[0].rows, (std::vector<RowSpec>{{1, 8}}));
  EXPECT_EQ(plainer[0].config, spec.config);
}

TEST(Fit, ThereMayBeNone) {
  EXPECT_FALSE(fitted(random_case({}, 1).spec, [](const AttentionConfig&) { return false; }));
}

}  // namespace
}  // namespace attn::harness
