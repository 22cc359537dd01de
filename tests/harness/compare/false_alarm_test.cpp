#include <gmock/gmock.h>

#include "tests/harness/compare/false_alarms.h"

namespace attn::harness {
namespace {

/// A short run of false_alarm_study.cpp, on seeds of its own.
TEST(FalseAlarms, CorrectBackendsPassRandomCases) {
  const FalseAlarms found = find_false_alarms(1'000'000, 300, true, 2);
  EXPECT_EQ(found.cases, 300);
  EXPECT_EQ(found.comparisons, 300 * 3 * 2);
  EXPECT_GT(found.quantised, 100);
  EXPECT_GT(found.float8, 50);
  EXPECT_THAT(found.alarms, testing::IsEmpty());
  // Degenerate cases are rare (one generated in fifty), and most of them still show a bug.
  EXPECT_LT(found.mistrusted, 9);
}

}  // namespace
}  // namespace attn::harness
