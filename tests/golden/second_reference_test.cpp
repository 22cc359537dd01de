// What sealing relies on: the exact reference and the second evaluation agree on whatever the
// generator makes, extreme scores included.

#include <gtest/gtest.h>

#include <cstdint>
#include <string>

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
    const Agreement agreement = agree(exact, evaluate_second(c, exact));
    EXPECT_TRUE(agreement.agreed()) << agreement.worst << " in " << name_of(agreement.stage);
  }
}

// Values of an fp8 cache are short numbers, so that attn_out holds halves of a block's largest
// value, 63.5 in int8 codes. The two evaluations, a rounding apart, would choose different codes.
TEST(SecondEvaluation, AgreesWhereTheInputOfOProjLiesOnTies) {
  const std::string spec = R"({"config": {"variant": "attention_with_rope", "dtype": "float32",
      "entry_point": "forward", "head_dim": 16, "hidden_size": 64, "num_attention_heads": 24,
      "num_key_value_heads": 4, "logit_softcap": 50.0, "rope": {"theta": 10000.0},
      "kv_cache": {"dtype": "float8_e4m3fn", "page_size": 7, "scale_granularity": "token_head"},
      "mask": {"variant": "chunked_causal", "chunk_size": 3},
      "quant": {"activation": "int8", "encoding": "q4_0"}},
      "rows": [[0, 8], [0, 4], [0, 5], [0, 7]], "sinks": true})";
  int differ = 0;
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    const Case c = harness::make_case(harness::parse_case_spec(spec), seed);
    const Trace exact = reference::evaluate(c, reference::Mode::kExact);
    EXPECT_TRUE(agree(exact, evaluate_second(c, exact)).agreed()) << "seed " << seed;
    differ += agree(exact, evaluate_second(c)).agreed() ? 0 : 1;
  }
  RecordProperty("seeds_with_other_codes", differ);
}

}  // namespace
}  // namespace attn::golden
