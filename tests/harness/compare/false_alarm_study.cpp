#include <gmock/gmock.h>

#include <iostream>

#include "tests/harness/compare/false_alarms.h"

namespace attn::harness {
namespace {

/// The study that docs/numerics.md records: 21,000 random correct cases, none above 1.0. Minutes.
TEST(FalseAlarmStudy, TwentyThousandCorrectCasesPass) {
  const FalseAlarms found = find_false_alarms(1, 21'000, true, 2);
  std::cout << found.cases << " cases, " << found.quantised << " quantised, " << found.float8
            << " with a float8 cache, " << found.comparisons << " comparisons, "
            << found.alarms.size() << " above 1.0, " << found.mistrusted << " mistrusted\n"
            << "largest / 99th percentile / median over cases of a case's largest ratio:\n"
            << found.table();
  EXPECT_THAT(found.alarms, testing::IsEmpty());
}

}  // namespace
}  // namespace attn::harness
