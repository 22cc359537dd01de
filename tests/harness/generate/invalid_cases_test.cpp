#include "harness/generate/invalid_cases.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <string>

#include "harness/generate/space.h"
#include "reference/core/error.h"
#include "reference/core/rules.h"

namespace attn::harness {
namespace {

/// Rules that a config breaks, each asked alone. The rules behind 13f and 11e divide by the sizes
/// and blocks that these look at.
std::set<std::string> broken_rules(const AttentionConfig& config) {
  std::set<std::string> broken;
  for (const ConfigRule& rule : config_rules()) {
    if (rule.check(config)) broken.emplace(rule.id);
    if (broken.contains("13f") || broken.contains("11e")) break;
  }
  return broken;
}

TEST(InvalidCases, AreRefusedWithTheFieldNamed) {
  for (const std::uint64_t seed : {1, 2, 3}) {
    for (const InvalidCase& invalid : invalid_cases(seed)) {
      try {
        validate(invalid.spec);
        ADD_FAILURE() << "rule " << invalid.rule << ", field " << invalid.field << " was accepted";
      } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::kConfig);
        EXPECT_EQ(error.rule(), invalid.rule) << error.what();
        EXPECT_EQ(error.field(), invalid.field) << error.what();
        EXPECT_THAT(error.what(), testing::HasSubstr(invalid.field));
      }
      EXPECT_THROW(make_case(invalid.spec, seed), Error);
    }
  }
}

TEST(InvalidCases, BreakOneRule) {
  for (const std::uint64_t seed : {4, 5, 6}) {
    for (const InvalidCase& invalid : invalid_cases(seed)) {
      const std::set<std::string> broken = broken_rules(invalid.spec.config);
      if (invalid.rule.starts_with("3")) {  // no_opaque refuses what other stacked layers do too
        EXPECT_THAT(broken, testing::Contains(invalid.rule)) << invalid.field;
      } else if (invalid.rule.empty()) {
        EXPECT_THAT(broken, testing::IsEmpty()) << invalid.field;
      } else {
        EXPECT_THAT(broken, testing::ElementsAre(invalid.rule)) << invalid.field;
      }
    }
  }
}

TEST(InvalidCases, EveryRuleOfConfigsIsBroken) {
  std::set<std::string> broken;
  for (const InvalidCase& invalid : invalid_cases(1)) broken.insert(invalid.rule);
  for (const ConfigRule& rule : config_rules()) {
    EXPECT_TRUE(broken.contains(std::string(rule.id))) << rule.id << ": " << rule.summary;
  }
}

}  // namespace
}  // namespace attn::harness
