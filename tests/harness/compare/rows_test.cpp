#include "harness/compare/rows.h"

#include <gmock/gmock.h>

#include <cmath>
#include <set>

#include "harness/backends/backend.h"
#include "harness/generate/case_spec.h"

namespace attn::harness {
namespace {

using testing::Contains;
using testing::Each;
using testing::Not;

/// One sequence of 10 + 200 tokens and one of 0 + 100; pages of 16, window 40.
Case long_case() {
  const char* const spec =
      R"({"config": {"entry_point": "forward", "variant": "attention_with_rope", "dtype": "float32",
          "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "hidden_size": 64,
          "mask": {"variant": "sliding_window_causal", "window_size": 40},
          "kv_cache": {"page_size": 16}}, "rows": [[10, 200], [0, 100]]})";
  return make_case(parse_case_spec(spec), 3);
}

TEST(Rows, AllByDefault) {
  const std::vector<std::int64_t> rows = select_rows(long_case(), {}, 0);
  EXPECT_EQ(rows.size(), 300u);
}

TEST(Rows, BoundaryRowsAreAlwaysThere) {
  RowSelection selection;
  selection.all = false;
  selection.random_rows = 0;
  const std::vector<std::int64_t> rows = select_rows(long_case(), selection, 64);
  // First and last of each sequence.
  for (const std::int64_t row : {0, 199, 200, 299}) EXPECT_THAT(rows, Contains(row));
  // Sequence 0 starts at position 10: row 5 is position 15, the last of a page, row 6 the first.
  EXPECT_THAT(rows, Contains(5));
  EXPECT_THAT(rows, Contains(6));
  // Positions 63 and 64, beside a key block of 64; 39 and 40, beside the window's edge.
  EXPECT_THAT(rows, Contains(63 - 10));
  EXPECT_THAT(rows, Contains(64 - 10));
  EXPECT_THAT(rows, Contains(39 - 10));
  EXPECT_THAT(rows, Contains(40 - 10));
  EXPECT_THAT(rows, Contains(200 + 39));
  // Positions 52 and 53 lie beside no edge.
  EXPECT_THAT(rows, Not(Contains(52 - 10)));
}

TEST(Rows, RandomRowsFollowTheSeed) {
  RowSelection selection;
  selection.all = false;
  selection.random_rows = 50;
  const Case c = long_case();
  const auto a = select_rows(c, selection, 0), b = select_rows(c, selection, 0);
  EXPECT_EQ(a, b);
  selection.seed = 2;
  EXPECT_NE(a, select_rows(c, selection, 0));
  EXPECT_THAT(a, Each(testing::AllOf(testing::Ge(0), testing::Lt(300))));
  EXPECT_GE(a.size(), 50u);
}

TEST(Rows, EveryRowIsDrawnEquallyOften) {
  // 10 of 300 rows, 3000 seeds: each row 100 times on average, standard deviation sqrt(100 * 29/30)
  // = 9.8.
  const Case c = long_case();
  RowSelection none;
  none.all = false;
  none.random_rows = 0;
  const auto always = select_rows(c, none, 0);
  const std::set<std::int64_t> boundary(always.begin(), always.end());
  std::vector<int> drawn(300, 0);
  for (std::uint64_t seed = 0; seed < 3000; ++seed) {
    RowSelection selection{false, 10, seed};
    for (const std::int64_t row : select_rows(c, selection, 0))
      ++drawn[static_cast<std::size_t>(row)];
  }
  for (std::int64_t row = 0; row < 300; ++row) {
    if (boundary.count(row) != 0) continue;
    EXPECT_NEAR(drawn[static_cast<std::size_t>(row)], 100, 5 * 9.8) << row;  // 300 rows: 5 sigma
  }
}

TEST(Rows, MissProbability) {
  EXPECT_EQ(miss_probability(100, 0, 0.5), 1.0);
  EXPECT_EQ(miss_probability(100, 100, 0.01), 0.0);
  EXPECT_NEAR(miss_probability(100, 1, 0.25), 0.75, 1e-15);
  // 98 choose 10 over 100 choose 10: (90 * 89) / (100 * 99)
  EXPECT_NEAR(miss_probability(100, 10, 0.02), 90.0 * 89 / (100 * 99), 1e-12);
  EXPECT_EQ(miss_probability(8, 4, 0.75), 0.0);  // 6 bad rows of 8 cannot miss 4 draws
  // Long contexts: (1 - share)^n in the limit.
  EXPECT_NEAR(miss_probability(1 << 20, 64, 0.05), std::pow(0.95, 64), 1e-3 * std::pow(0.95, 64));
}

TEST(Rows, ChosenRowsAreJudgedAsAmongAll) {
  const Case c = long_case();
  const auto backend = make_backend("cpu");
  const Trace trace = backend->run(c, all_stages());
  CompareOptions chosen;
  chosen.rows = {false, 8, 1};
  for (const bool taps : {true, false}) {
    chosen.taps = taps;
    const Verdict verdict = compare(c, trace, backend->arithmetic(c.config), chosen);
    EXPECT_EQ(verdict.status, Status::kPassed) << verdict.detail;
    EXPECT_LT(verdict.rows_checked, verdict.rows_total);
    CompareOptions all = chosen;
    all.rows = {};
    const Verdict whole = compare(c, trace, backend->arithmetic(c.config), all);
    for (std::size_t i = 0; i < verdict.stages.size(); ++i) {
      EXPECT_LE(verdict.stages[i].elements, whole.stages[i].elements);
      // Blocks of other rows sum in another order: our own float64 error, 1e-15 beside 2^-24.
      EXPECT_LE(verdict.stages[i].worst_ratio, whole.stages[i].worst_ratio * (1 + 1e-6));
    }
  }
}

TEST(Rows, ABugInAChosenRowIsFound) {
  const Case c = long_case();
  const auto backend = make_backend("cpu");
  Trace trace = backend->run(c, all_stages());
  trace[Stage::kAttnOut].set_value(199 * 16, 1.0 + trace[Stage::kAttnOut].value(199 * 16));
  CompareOptions chosen;
  chosen.rows = {false, 0, 1};
  const Verdict verdict = compare(c, trace, backend->arithmetic(c.config), chosen);
  EXPECT_EQ(verdict.status, Status::kFailed);
  EXPECT_EQ(*verdict.first_bad, Stage::kAttnOut);
}

TEST(Rows, Described) {
  EXPECT_EQ(describe_row(long_case(), 203), "row 203 (sequence 1, position 3)");
  EXPECT_EQ(sequence_of(long_case(), 199), 0);
  EXPECT_EQ(sequence_of(long_case(), 200), 1);
}

}  // namespace
}  // namespace attn::harness
