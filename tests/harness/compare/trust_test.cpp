#include <gmock/gmock.h>

#include <functional>

#include "harness/backends/backend.h"
#include "harness/compare/compare.h"
#include "harness/generate/case_spec.h"
#include "reference/reference.h"
#include "tests/harness/compare/golden_cases.h"

// Planted cases for each reason to mistrust. A trivial answer must leave the float32 bound, or its
// test does not apply, and stay within the declared one: all but the last are judged as bfloat16.

namespace attn::harness {
namespace {

using testing::HasSubstr;

constexpr double kW = 0x1p-8;  // bfloat16's unit roundoff

/// Attention of 4 rows over 8 keys, one head, no mask. k is 0, so every key weighs the same, 1/8,
/// until a test says otherwise; q is 1.
Case plain_attention() {
  const char* const spec =
      R"({"config": {"entry_point": "attention", "variant": "attention", "dtype": "float32",
          "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 2, "scale": 1.0,
          "mask": {"variant": "null"}, "kv_cache": {"page_size": 8}}, "rows": [[4, 8]]})";
  Case c = make_case(parse_case_spec(spec), 1);
  for (std::int64_t i = 0; i < c.q.size(); ++i) c.q.set_value(i, 1.0);
  for (std::int64_t key = 0; key < 8; ++key) {
    for (std::int64_t d = 0; d < 2; ++d) c.cache.k.set_value(c.cache.k_index(0, key) + d, 0.0);
  }
  return c;
}

void set_values(Case& c, const std::function<double(std::int64_t key)>& value) {
  for (std::int64_t key = 0; key < c.key_count(0); ++key) {
    for (std::int64_t d = 0; d < 2; ++d)
      c.cache.v.set_value(c.cache.v_index(0, key) + d, value(key));
  }
}

Arithmetic bfloat16() {
  Arithmetic a;
  a.store = a.out = a.cache = a.probabilities = ElementType::kBFloat16;
  return a;
}

std::string reason(const Case& c, const Arithmetic& declared) {
  const Trace exact = reference::evaluate(c, reference::Mode::kExact);
  const std::string alone = mistrust_reason(c, exact, declared);
  // compare() says the same of a backend that computed it well.
  const Trace trace =
      c.config.starts_at_attention() ? exact : make_backend("cpu")->run(c, all_stages());
  const Verdict verdict = compare(c, trace, declared);
  if (alone.empty()) {
    EXPECT_EQ(verdict.status, Status::kPassed) << verdict.detail;
  } else {
    EXPECT_EQ(verdict.status, Status::kMistrusted);
    EXPECT_EQ(verdict.detail, alone);
  }
  return alone;
}

TEST(Mistrust, ZerosWouldHavePassed) {
  // Values +-1 and one of 1 + w/16: o = w/128, and A = 1. P in bfloat16 may be off by w * 1, more
  // than o; in float32 by 2^-24 * 60, less.
  Case c = plain_attention();
  set_values(c, [](std::int64_t key) {
    return key == 0 ? 1.0 + kW / 16 : key % 2 == 0 ? 1.0 : -1.0;
  });
  EXPECT_EQ(reason(c, bfloat16()), "zeros would have passed as well");
}

TEST(Mistrust, TheMeanWouldHavePassed) {
  // Logits w/16 apart and values 1 to 8: o differs from the mean by about w/16 * 2, the bound is w
  // * 4.5. Zeros are far away; moved rows are made different by their own q.
  Case c = plain_attention();
  set_values(c, [](std::int64_t key) { return 1.0 + static_cast<double>(key); });
  for (std::int64_t key = 0; key < 8; ++key) {
    c.cache.k.set_value(c.cache.k_index(0, key), key % 2 == 0 ? kW / 16 : 0.0);
  }
  EXPECT_EQ(reason(c, bfloat16()), "the mean of the visible values would have passed as well");
}

TEST(Mistrust, MovedRowsWouldHavePassed) {
  // Rows whose logits differ by w/16, around logits that favour key 0.
  Case c = plain_attention();
  set_values(c, [](std::int64_t key) { return 1.0 + static_cast<double>(key); });
  c.cache.k.set_value(c.cache.k_index(0, 0), 2.0);
  for (std::int64_t row = 0; row < 4; ++row) {
    c.q.set_value(row * 2, 1.0 + kW / 32 * static_cast<double>(row));
  }
  EXPECT_EQ(reason(c, bfloat16()), "the outputs moved by one row would have passed as well");
  EXPECT_EQ(reason(c, Arithmetic{}), "");  // a float32 backend can be told apart on it
}

TEST(Mistrust, NoTestApplies) {
  Case c = plain_attention();
  set_values(c, [](std::int64_t) { return 0.0; });
  EXPECT_THAT(reason(c, Arithmetic{}), HasSubstr("are all right within the float32 bound"));
}

TEST(Mistrust, OneTestIsEnough) {
  // Equal keys: the mean is the answer and all rows are equal, but zeros are not.
  Case c = plain_attention();
  set_values(c, [](std::int64_t key) { return 1.0 + static_cast<double>(key); });
  EXPECT_EQ(reason(c, Arithmetic{}), "");
}

TEST(Mistrust, AFloat64BackendIsTrustedAtFloat32) {
  // What differs by less than float32 resolves shows nothing, whatever the backend resolves.
  Case c = plain_attention();
  set_values(c, [](std::int64_t key) { return key % 2 == 0 ? 1.0 : -1.0; });
  c.cache.v.set_value(c.cache.v_index(0, 0), 1.0 + 0x1p-23);
  Arithmetic a;
  a.store = a.out = a.lse = a.cache = a.probabilities = a.norm_eps = ElementType::kFloat64;
  a.projection_acc = a.attention_acc = Accumulator::kFloat64;
  a.exp_rel = 0x1p-52;
  EXPECT_THAT(reason(c, a), HasSubstr("within the float32 bound"));
}

TEST(Mistrust, MaterializeIsTestedOnTheCaches) {
  const char* const spec =
      R"({"config": {"entry_point": "materialize_kv_from_hidden", "variant": "attention_with_rope",
          "dtype": "float32", "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8,
          "hidden_size": 64, "kv_cache": {"page_size": 4}}, "rows": [[5, 3]]})";
  Case c = make_case(parse_case_spec(spec), 5);
  EXPECT_EQ(reason(c, Arithmetic{}), "");
  for (const char* name : {"k_proj.weight", "v_proj.weight"}) {
    Tensor& w = c.weights.at(name);
    for (std::int64_t i = 0; i < w.size(); ++i) w.set_value(i, 0.0);
  }
  EXPECT_THAT(reason(c, Arithmetic{}), HasSubstr("within the float32 bound"));
}

TEST(Mistrust, FailureComesFirst) {
  Case c = plain_attention();
  set_values(c, [](std::int64_t) { return 0.0; });
  Trace trace = reference::evaluate(c, reference::Mode::kExact);
  trace[Stage::kAttnOut].set_value(0, 1.0);
  EXPECT_EQ(compare(c, trace, Arithmetic{}).status, Status::kFailed);
}

TEST(Mistrust, CanBeLeftOut) {
  Case c = plain_attention();
  set_values(c, [](std::int64_t) { return 0.0; });
  CompareOptions options;
  options.check_trust = false;
  const Trace trace = reference::evaluate(c, reference::Mode::kExact);
  EXPECT_EQ(compare(c, trace, Arithmetic{}, options).status, Status::kPassed);
}

TEST(Mistrust, NoGoldenFileIsMistrusted) {
  for (const GoldenCase& golden : covered_golden_cases()) {
    const Trace exact = reference::evaluate(golden.c, reference::Mode::kExact);
    for (const char* backend : {"exact", "faithful", "cpu"}) {
      const Arithmetic declared = make_backend(backend)->arithmetic(golden.c.config);
      EXPECT_EQ(mistrust_reason(golden.c, exact, declared), "") << golden.c.id << ", " << backend;
    }
  }
}

}  // namespace
}  // namespace attn::harness
