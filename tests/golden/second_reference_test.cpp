// What sealing relies on: the exact reference and the second evaluation agree on whatever the
// generator makes, extreme scores included.

#include <gtest/gtest.h>

#include <cstdint>

#include "golden/second_evaluation.h"
#include "harness/generate/case_spec.h"
#include "reference/reference.h"

namespace attn::golden {
namespace {

TEST(SecondEvaluation, AgreesWithTheExactReferenceOnRandomCases) {
  for (std::uint64_t seed = 0; seed < 250; ++seed) {
    const Case c = harness::make_case(harness::random_small_spec(seed), seed);
    SCOPED_TRACE(c.repro);
    const Trace exact = reference::evaluate(c, reference::Mode::kExact);
    const Agreement agreement = agree(exact, evaluate_second(c));
    EXPECT_TRUE(agreement.agreed()) << agreement.worst << " in " << name_of(agreement.stage);
  }
}

}  // namespace
}  // namespace attn::golden
