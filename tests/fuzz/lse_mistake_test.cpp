#include "harness/compare/lse_mistake.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

#include "harness/backends/backend.h"
#include "harness/compare/compare.h"
#include "harness/generate/case_spec.h"

namespace attn::harness {
namespace {

using ::testing::HasSubstr;

/// Three query heads, more rows than heads, with a sink near the log-sum-exp.
Case attention_case(const char* dtype) {
  return make_case(
      parse_case_spec(std::string(R"({"config": {"variant": "attention", "entry_point": "attention",
              "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 8, "dtype": ")") +
                      dtype + R"(", "mask": {"variant": "causal"}, "kv_cache": {"page_size": 4}},
              "rows": [[5, 9], [2, 2]], "sinks": true})"),
      11);
}

struct Wrong {
  bool base2 = false, heads_first = false, no_sink = false;
};

/// lse of a backend that makes these mistakes.
Trace wrong_answer(const Case& c, const Wrong& wrong) {
  Case asked = c;
  if (wrong.no_sink) asked.weights.erase("sinks");
  Trace trace = make_backend("cpu")->run(asked, stages_of(c.config));
  if (wrong.no_sink) {  // its probabilities are right
    trace[Stage::kAttnOut] = make_backend("cpu")->run(c, stages_of(c.config))[Stage::kAttnOut];
  }
  Tensor& lse = trace[Stage::kLse];
  const Tensor before = lse;
  const std::int64_t tokens = lse.dim(0), heads = lse.dim(1);
  for (std::int64_t t = 0; t < tokens; ++t) {
    for (std::int64_t h = 0; h < heads; ++h) {
      const double value = before.value(t * heads + h) * (wrong.base2 ? std::numbers::log2e : 1.0);
      lse.set_value(wrong.heads_first ? h * tokens + t : t * heads + h, value);
    }
  }
  return trace;
}

std::string named(const Wrong& wrong, const char* dtype = "float32") {
  const Case c = attention_case(dtype);
  const Arithmetic arithmetic = make_backend("cpu")->arithmetic(c.config);
  const Verdict verdict = compare(c, wrong_answer(c, wrong), arithmetic);
  EXPECT_EQ(verdict.first_bad, Stage::kLse) << verdict.detail;
  return verdict.detail;
}

TEST(LseMistake, EachIsNamed) {
  for (const char* dtype : {"float32", "bfloat16"}) {
    EXPECT_THAT(named({.base2 = true}, dtype), HasSubstr("looks like: logarithm to base 2"));
    EXPECT_THAT(named({.heads_first = true}, dtype), HasSubstr("looks like: heads before tokens"));
    EXPECT_THAT(named({.no_sink = true}, dtype), HasSubstr("looks like: without the sink"));
  }
}

TEST(LseMistake, TwoAtOnceAreNamed) {
  const std::string both = named({.base2 = true, .no_sink = true});
  EXPECT_THAT(both, HasSubstr("base 2"));
  EXPECT_THAT(both, HasSubstr("without the sink"));
}

TEST(LseMistake, AnotherMistakeIsNot) {
  const Case c = attention_case("float32");
  Trace trace = wrong_answer(c, {});
  trace[Stage::kLse].set_value(4, trace[Stage::kLse].value(4) + 0.01);
  const Verdict verdict = compare(c, trace, make_backend("cpu")->arithmetic(c.config));
  EXPECT_EQ(verdict.first_bad, Stage::kLse);
  EXPECT_THAT(verdict.detail, ::testing::Not(HasSubstr("looks like")));
  // Almost base 2: 1.0001 times is not the base.
  Trace almost = wrong_answer(c, {.base2 = true});
  for (std::int64_t i = 0; i < almost[Stage::kLse].size(); ++i) {
    almost[Stage::kLse].set_value(i, almost[Stage::kLse].value(i) * 1.0001);
  }
  EXPECT_EQ(lse_mistake(c, almost, make_backend("cpu")->arithmetic(c.config)), "");
}

}  // namespace
}  // namespace attn::harness
