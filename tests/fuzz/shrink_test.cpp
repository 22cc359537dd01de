#include "harness/generate/shrink.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "golden/digest.h"
#include "harness/fuzz/alike.h"
#include "harness/generate/feature_axes.h"
#include "harness/generate/space.h"
#include "tests/fuzz/planted.h"

namespace attn::harness {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

CaseSpec spec_of(const std::string& json) { return parse_case_spec(json); }

constexpr const char* kPlainAttention =
    R"({"config": {"variant": "attention", "entry_point": "attention", "num_attention_heads": 1,
        "num_key_value_heads": 1, "head_dim": 16, "dtype": "float32", "mask": {"variant": "null"},
        "kv_cache": {"page_size": 128}}, "rows": [[2, 9]], "pages": "identity"})";

TEST(Features, ThePlainestCaseHasNone) {
  EXPECT_THAT(non_default_features(spec_of(kPlainAttention)), IsEmpty());
}

TEST(Features, EachIsNamedWithItsValue) {
  CaseSpec spec = spec_of(kPlainAttention);
  spec.config.num_attention_heads = 6;
  spec.config.num_key_value_heads = 2;
  spec.config.logit_softcap = 30.0;
  spec.config.mask.variant = MaskVariant::kSlidingWindowCausal;
  spec.config.mask.window_size = 5;
  spec.config.kv_cache.page_size = 16;
  spec.sinks = true;
  spec.rows = {{2, 40}, {1, 3}};
  EXPECT_THAT(non_default_features(spec),
              UnorderedElementsAre("logit_softcap: 30", "mask: sliding_window_causal 5", "sinks"));
  EXPECT_EQ(headline_sizes(spec), "6 heads, 40 keys, page 16");
  EXPECT_THAT(all_sizes(spec),
              ElementsAre("6 heads on 2 kv heads", "head_dim 16",
                          "2 rows on 40 keys and 1 row on 3 keys", "page_size 16"));
}

/// Every axis counts when it is not plain, and resetting it makes it plain and nothing else less
/// so.
TEST(Features, ResettingAnAxisMakesItPlain) {
  for (std::int64_t n = 0; n < 200; ++n) {
    const CaseSpec spec = random_case({}, n).spec;
    for (const FeatureAxis& axis : feature_axes()) {
      if (!axis.value(spec)) continue;
      CaseSpec simpler = spec;
      axis.reset(simpler);
      settle(simpler);
      EXPECT_FALSE(axis.value(simpler)) << axis.name;
      EXPECT_LT(non_default_features(simpler).size(), non_default_features(spec).size())
          << axis.name << to_json(spec);
    }
  }
}

/// A failure that needs one thing keeps that thing and nothing else.
TEST(Shrink, KeepsWhatTheFailureNeeds) {
  const auto needs = [](const auto& condition) {
    std::int64_t found = 0;
    for (std::int64_t n = 0; n < 60; ++n) {
      const PlannedCase planned = random_case({}, n);
      if (!condition(planned.spec)) continue;
      ++found;
      const ShrinkResult small =
          shrink(planned.spec, planned.seed,
                 [&](const CaseSpec& spec, std::uint64_t) { return condition(spec); });
      EXPECT_TRUE(condition(small.spec));
      EXPECT_LE(non_default_features(small.spec).size(), 1U) << to_json(small.spec);
      EXPECT_NO_THROW(validate(small.spec));
    }
    EXPECT_GT(found, 0);
  };
  needs([](const CaseSpec& s) { return s.config.use_qk_norm; });
  needs([](const CaseSpec& s) { return s.config.group_size() > 2; });
  needs([](const CaseSpec& s) { return s.config.kv_cache.page_size <= 4; });
  needs([](const CaseSpec& s) { return s.rows.size() > 1; });
  needs([](const CaseSpec& s) { return s.config.rope.scaling.type == RopeScalingType::kLongrope; });
}

/// Where a bug needs one of two features, taking them away one at a time ends with the wrong one:
/// from bfloat16 and a norm, which are enough, to neither of which a soft-cap can be added.
TEST(Shrink, FindsTheSmallSetThatStepsMiss) {
  const auto fails = [](const CaseSpec& s, std::uint64_t) {
    const std::size_t features = non_default_features(s).size();
    return s.sinks ? features == 1 || features > 4 : features > 3;
  };
  std::int64_t found = 0;
  for (std::int64_t n = 0; n < 200; ++n) {
    const PlannedCase planned = random_case({}, n);
    if (!planned.spec.sinks || !fails(planned.spec, 0)) continue;
    ++found;
    EXPECT_THAT(non_default_features(shrink(planned.spec, planned.seed, fails).spec),
                ElementsAre("sinks"));
  }
  EXPECT_GT(found, 0);
}

/// A window is moved with the keys that lie before it, a page with what it holds.
TEST(Shrink, MovesSizesThatHangTogether) {
  CaseSpec spec = spec_of(kPlainAttention);
  spec.config.mask.variant = MaskVariant::kSlidingWindowCausal;
  spec.config.mask.window_size = 40;
  spec.rows = {{1, 41}};
  const ShrinkResult window = shrink(spec, 1, [](const CaseSpec& s, std::uint64_t) {
    return s.config.mask.window_size && s.rows.at(0).second == *s.config.mask.window_size + 1;
  });
  EXPECT_EQ(window.spec.rows.at(0), (RowSpec{0, 2}));
  spec = spec_of(kPlainAttention);
  spec.rows = {{1, 131}};
  const ShrinkResult page = shrink(spec, 1, [](const CaseSpec& s, std::uint64_t) {
    return s.rows.at(0).second > s.config.kv_cache.page_size;
  });
  EXPECT_EQ(headline_sizes(page.spec), "1 head, 17 keys, page 16");
}

/// What one value of the data hides, another shows.
TEST(Shrink, TriesOtherValues) {
  CaseSpec spec = spec_of(kPlainAttention);
  spec.rows = {{1, 30}};
  const ShrinkResult small = shrink(spec, 9, [](const CaseSpec& s, std::uint64_t seed) {
    return s.rows.at(0).second >= (seed == 2 ? 25 : 30);
  });
  EXPECT_EQ(small.spec.rows.at(0), (RowSpec{0, 25}));
  EXPECT_EQ(small.seed, 2U);
}

/// The boundary of a number is found, not just its power of two.
TEST(Shrink, FindsTheSmallestLength) {
  CaseSpec spec = spec_of(kPlainAttention);
  spec.rows = {{7, 300}};
  const ShrinkResult small =
      shrink(spec, 9, [](const CaseSpec& s, std::uint64_t) { return s.rows.at(0).second >= 133; });
  EXPECT_EQ(small.spec.rows.at(0), (RowSpec{0, 133}));
  EXPECT_EQ(small.seed, 1U);
}

TEST(Shrink, ChangesNothingWhereNothingSmallerFails) {
  const PlannedCase planned = random_case({}, 3);
  const ShrinkResult same =
      shrink(planned.spec, planned.seed, [&](const CaseSpec& s, std::uint64_t seed) {
        return s == planned.spec && seed == planned.seed;
      });
  EXPECT_EQ(same.spec, planned.spec);
  EXPECT_EQ(same.seed, planned.seed);
}

TEST(Shrink, EndsInTime) {
  const PlannedCase planned = random_case({}, 3);
  const ShrinkResult result = shrink(
      planned.spec, planned.seed, [](const CaseSpec&, std::uint64_t) { return true; }, 0.0);
  EXPECT_EQ(result.tried, 0);
}

/// Bugs of several stages: what is left fails at the same stage, with at most two features.
TEST(Shrink, PlantedBugsShrinkToTwoFeatures) {
  for (const char* id : {"kv_head_modulo", "window_one_too_wide", "softcap_ignored", "sink_dropped",
                         "page_table_ignored", "mask_top_left"}) {
    const FaultInfo& fault = find_fault(id);
    const auto failure = find_failure(fault, 100);
    ASSERT_TRUE(failure) << id;
    const ShrinkResult small = shrunk(fault, *failure);
    EXPECT_LE(non_default_features(small.spec).size(), 2U) << id << to_json(small.spec);
    EXPECT_LT(small.seconds, 60.0) << id;
    EXPECT_TRUE(fails_alike(answer(id, small.spec, small.seed).verdict, failure->verdict)) << id;
  }
}

/// The sizes that the trigger needs, and no more.
TEST(Shrink, SizesAreTheTriggers) {
  struct Smallest {
    const char* fault;
    const char* sizes;
  };
  for (const Smallest& want : {Smallest{"kv_head_modulo", "4 heads, 1 key, page 128"},
                               Smallest{"window_one_too_wide", "1 head, 2 keys, page 128"},
                               Smallest{"mask_tensor_tail_of_one", "1 head, 33 keys, page 128"},
                               Smallest{"last_page_of_one_key", "1 head, 17 keys, page 16"},
                               Smallest{"group_tile_of_16", "17 heads, 0 keys, page 128"},
                               Smallest{"page_size_doubled", "1 head, 17 keys, page 16"}}) {
    const FaultInfo& fault = find_fault(want.fault);
    const auto failure = find_failure(fault, 100);
    ASSERT_TRUE(failure) << want.fault;
    EXPECT_EQ(headline_sizes(shrunk(fault, *failure).spec), want.sizes) << want.fault;
  }
}

TEST(FailsAlike, KeepsTheStageThatWasBadFirst) {
  const auto verdict = [](std::initializer_list<Stage> bad) {
    Verdict result;
    result.status = Status::kFailed;
    for (const Stage stage : bad) {
      if (!result.first_bad) result.first_bad = stage;
      result.stages.emplace_back().stage = stage;
      result.stages.back().bad = 1;
    }
    return result;
  };
  const Verdict out_alone = verdict({Stage::kAttnOut}),
                both = verdict({Stage::kLse, Stage::kAttnOut});
  EXPECT_TRUE(fails_alike(out_alone, out_alone));
  EXPECT_TRUE(fails_alike(both, out_alone));
  EXPECT_FALSE(fails_alike(out_alone, both));
  EXPECT_FALSE(fails_alike(verdict({Stage::kLse}), out_alone));
  EXPECT_FALSE(fails_alike(verdict({Stage::kCacheK, Stage::kAttnOut}), out_alone));
  Verdict crashed;
  crashed.status = Status::kCrashed;
  EXPECT_FALSE(fails_alike(crashed, both));
  EXPECT_TRUE(fails_alike(crashed, crashed));
}

/// Shrinking tries calls without a new token: a cache that such a call spoils is judged as well.
TEST(Shrink, ACallWithoutNewTokensIsJudged) {
  const CaseSpec spec = spec_of(
      R"({"config": {"variant": "attention_with_rope", "entry_point": "forward",
          "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 16, "hidden_size": 8,
          "dtype": "float32", "kv_cache": {"page_size": 4}}, "rows": [[9, 0], [7, 0]]})");
  EXPECT_EQ(answer("page_table_ignored", spec, 3).verdict.first_bad, Stage::kCacheK);
  const CaseSpec quantised = spec_of(
      R"({"config": {"variant": "attention_with_rope", "entry_point": "forward",
          "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 16, "hidden_size": 8,
          "dtype": "float32", "kv_cache": {"page_size": 4},
          "quant": {"encoding": "float8_e4m3fn", "activation": "token",
                    "weight_granularity": "rowwise"}}, "rows": [[9, 0]]})");
  EXPECT_EQ(answer("none", quantised, 3).verdict.status, Status::kPassed);
}

std::string digest_of(const Tensor& t) {
  return t.empty() ? "-" : golden::sha256_hex(t.bytes()).substr(0, 8);
}

/// x or q, keys, page table: what a case is made of. freqs_cis may differ by an ulp from library to
/// library.
std::vector<std::string> digests(const Case& c) {
  return {digest_of(c.x), digest_of(c.q), digest_of(c.cache.k), digest_of(c.cache.page_table)};
}

/// The words of a repro line make the same bytes again, on any machine.
TEST(Reproduction, TheWordsOfALineMakeTheSameCase) {
  for (std::int64_t n = 0; n < 40; ++n) {
    const PlannedCase planned = random_case({}, n);
    const Case first = make_case(planned.spec, planned.seed);
    const CaseSpec parsed = parse_case_spec(to_json(planned.spec));
    ASSERT_EQ(parsed, planned.spec);
    const Case again = make_case(parsed, planned.seed);
    ASSERT_EQ(digests(first), digests(again)) << first.repro;
    for (const auto& [name, weight] : first.weights) EXPECT_EQ(weight, again.weights.at(name));
  }
}

/// Recorded once; another compiler or machine must make the same bytes.
TEST(Reproduction, TheBytesAreThoseThatWereRecorded) {
  EXPECT_THAT(digests(make_case(spec_of(kPlainAttention), 7)),
              ElementsAre("-", "49567f73", "a5951c00", "df3f6198"));
}

}  // namespace
}  // namespace attn::harness
