// The references are right, so they break no relation. The exact one computes in float64 but keeps
// its cache in the case's type, the faithful one prepares weights in it: relations must not take
// that type's roundings, or what a layer does not take as an input, for a mistake.
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <tuple>
#include <utility>

#include "harness/generate/case_spec.h"
#include "harness/relations/relations.h"
#include "tests/relations/tampered.h"

namespace attn::harness {
namespace {

/// A layer of four query heads: these are the config's other keys, and the spec's.
CaseSpec layer(const std::string& config, const std::string& spec = R"("rows": [[0, 6], [9, 4]])") {
  return parse_case_spec(
      R"({"config": {"entry_point": "forward", "hidden_size": 48, "num_attention_heads": 4,
          "num_key_value_heads": 2, "head_dim": 16, "mask": {"variant": "causal"}, )" +
      config + "}, " + spec + "}");
}

CaseSpec cached_as(const std::string& dtype, const std::string& cache) {
  return layer(R"("variant": "attention_with_rope", "dtype": ")" + dtype +
               R"(", "kv_cache": {"page_size": 4, "dtype": ")" + cache + R"("})");
}

CaseSpec no_opaque() {
  return layer(R"("variant": "no_opaque", "stacked_qkv": true, "dtype": "bfloat16",
                  "rope": {"interleaved": true}, "kv_cache": {"page_size": 4})");
}

RelationResult check(const std::string& relation, const Case& c, const Backend& backend) {
  EXPECT_TRUE(find_relation(relation).applies(c)) << relation;
  return find_relation(relation).check(Subject(c, backend));
}

void expect_holds(const std::string& relation, const Case& c, const char* backend = "exact") {
  const RelationResult result = check(relation, c, *make_backend(backend));
  EXPECT_EQ(result.skipped, "") << relation;
  EXPECT_FALSE(result.broken) << to_string(*result.broken) << "\n" << c.repro;
}

constexpr int kCases = 120;
constexpr int kShards = 3;  // ctest runs them side by side

using NameAndShard = std::tuple<const char*, int>;
class ReferenceBackends : public testing::TestWithParam<NameAndShard> {};

TEST_P(ReferenceBackends, BreakNoRelation) {
  const auto& [name, shard] = GetParam();
  const auto backend = make_backend(name);
  for (int i = 1 + shard; i <= kCases; i += kShards) {
    const auto seed = static_cast<std::uint64_t>(i);
    const Case c = make_case(random_small_spec(seed), seed);
    const auto broken = first_broken(c, *backend);
    EXPECT_FALSE(broken) << to_string(*broken) << "\n" << c.repro;
  }
}

INSTANTIATE_TEST_SUITE_P(Shard, ReferenceBackends,
                         testing::Combine(testing::Values("exact", "faithful"),
                                          testing::Range(0, kShards)),
                         [](const auto& test) {
                           return std::string(std::get<0>(test.param)) + "_" +
                                  std::to_string(std::get<1>(test.param));
                         });

// ---- Keys and values that pass through the pool between two calls.

constexpr const char* kSplits[] = {"chunked_prefill", "prefill_is_decode"};

TEST(PoolRounding, IsAllowedBetweenTwoCalls) {
  for (const char* type : {"float32", "bfloat16", "float16"}) {
    const Case c = make_case(cached_as(type, type), 1);
    for (const char* relation : kSplits) {
      expect_holds(relation, c);
      const RelationResult result = check(relation, c, *make_backend("exact"));
      EXPECT_GT(result.worst_ratio, 0.1) << "nothing was rounded: the test shows nothing";
      EXPECT_LE(result.worst_ratio, 1.0);
    }
  }
}

/// One rounding of the pool's type, and no more.
TEST(PoolRounding, OfANarrowerTypeIsFound) {
  const Tampered narrower("exact", nullptr, [](const Case&, Trace& trace) {
    Tensor& keys = trace.cache->k;
    for (std::int64_t i = 0; i < keys.size(); ++i) {
      keys.set_value(i, round_to(ElementType::kBFloat16, keys.value(i)));
    }
  });
  const Case c = make_case(cached_as("float16", "float16"), 1);
  for (const char* relation : kSplits) EXPECT_TRUE(check(relation, c, narrower).broken) << relation;
}

TEST(PoolRounding, DoesNotHideAMaskAtTheWrongEnd) {
  const Tampered top_left("exact", [](Case& c) { c.config.mask.align = MaskAlign::kTopLeft; });
  const Case c = make_case(cached_as("float16", "float16"), 1);
  for (const char* relation : kSplits) EXPECT_TRUE(check(relation, c, top_left).broken) << relation;
}

/// Such a value is infinite in the pool, which no rounding bounds.
TEST(PoolRounding, IsNotAskedOfValuesBeyondTheTypesRange) {
  Case c = make_case(cached_as("float32", "float16"), 1);
  for (std::int64_t i = 0; i < c.x.size(); ++i) c.x.set_value(i, 1e6 * c.x.value(i));
  for (const char* relation : kSplits) {
    const RelationResult result = check(relation, c, *make_backend("exact"));
    EXPECT_FALSE(result.broken) << to_string(*result.broken);
    EXPECT_NE(result.skipped, "") << relation;
  }
}

// ---- The layer that makes its own table.

TEST(RopeShift, HoldsForTheLayerThatMakesItsOwnTable) {
  expect_holds("rope_shift", make_case(no_opaque(), 1));
}

TEST(RopeShift, FindsQueriesOfAnotherRopeStyleThere) {
  const Tampered halves("exact", [](Case& c) { c.config.rope.interleaved = false; });
  EXPECT_TRUE(check("rope_shift", make_case(no_opaque(), 1), halves).broken);
}

// ---- A clip that is no number of the weights' type.

TEST(ClipBeforehand, HoldsWhereTheClipIsRounded) {
  const Case c = make_case(layer(R"("variant": "attention_with_rope", "dtype": "bfloat16",
                                    "clip_qkv": 0.1, "kv_cache": {"page_size": 4})"),
                           1);
  expect_holds("clip_beforehand", c);
  const Tampered unclipped("exact", [](Case& tampered) { tampered.config.clip_qkv.reset(); });
  EXPECT_TRUE(check("clip_beforehand", c, unclipped).broken) << "no weight lies beyond the clip";
}

// ---- Encoded weights that a layer prepares in its own type.

TEST(DenseWeights, AreThoseThatTheBackendDeclares) {
  const Case c = make_case(layer(R"("variant": "attention_with_rope", "dtype": "bfloat16",
                                    "quant": {"encoding": "gptq", "bits": 4, "group_size": -1},
                                    "kv_cache": {"page_size": 4})"),
                           1);
  for (const char* backend : {"exact", "faithful", "cpu"}) {
    expect_holds("dense_weights", c, backend);
  }
}

}  // namespace
}  // namespace attn::harness
