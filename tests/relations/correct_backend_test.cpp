// A right implementation breaks no relation: random cases over the whole space.
#include <gtest/gtest.h>

#include <map>
#include <string_view>

#include "harness/generate/case_spec.h"
#include "harness/relations/relations.h"

namespace attn::harness {
namespace {

constexpr int kCases = 300;
constexpr int kShards = 6;  // ctest runs them side by side

class CorrectBackend : public testing::TestWithParam<int> {};

TEST_P(CorrectBackend, BreaksNoRelation) {
  const auto cpu = make_backend("cpu:block=16");
  for (int seed = 1 + GetParam(); seed <= kCases; seed += kShards) {
    const Case c = make_case(random_small_spec(static_cast<std::uint64_t>(seed)), 1);
    const Subject subject(c, *cpu);
    for (const Relation& relation : relations()) {
      if (!relation.applies(c)) continue;
      const RelationResult result = relation.check(subject);
      EXPECT_FALSE(result.broken) << to_string(*result.broken) << "\n" << c.repro;
    }
  }
}

/// Relations that never ran would pass as well.
TEST(RelationsOnCpu, EveryRelationIsChecked) {
  const auto cpu = make_backend("cpu");
  std::map<std::string_view, int> checked;
  for (std::uint64_t seed = 1; seed <= 80; ++seed) {
    const Case c = make_case(random_small_spec(seed), seed);
    const Subject subject(c, *cpu);
    for (const Relation& relation : relations()) {
      if (!relation.applies(c)) continue;
      const RelationResult result = relation.check(subject);
      EXPECT_EQ(result.skipped, "") << relation.name << "\n" << c.repro;
      ++checked[relation.name];
    }
  }
  for (const Relation& relation : relations())
    EXPECT_GT(checked[relation.name], 0) << relation.name;
}

INSTANTIATE_TEST_SUITE_P(Shard, CorrectBackend, testing::Range(0, kShards));

}  // namespace
}  // namespace attn::harness
