#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>

#include "harness/backends/backend.h"
#include "harness/compare/compare.h"
#include "harness/compare/stage_score.h"
#include "harness/generate/case_spec.h"
#include "tests/harness/compare/golden_cases.h"

namespace attn::harness {
namespace {

using testing::HasSubstr;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
const double kNaN = std::nan("");

TEST(ErrorRatio, Numbers) {
  EXPECT_EQ(error_ratio(1.5, 1.0, 1.0), 0.5);
  EXPECT_EQ(error_ratio(2.0, 1.0, 1.0), 1.0);
  EXPECT_EQ(error_ratio(0.0, -0.0, 0.0), 0.0);
  EXPECT_EQ(error_ratio(1.0, 1.0, 0.0), 0.0);
  EXPECT_EQ(error_ratio(1.0 + 1e-15, 1.0, 0.0), kInfinity);
  EXPECT_EQ(error_ratio(2.0, 1.0, kNaN), kInfinity);
}

TEST(ErrorRatio, NotNumbers) {
  EXPECT_EQ(error_ratio(kNaN, 1.0, 1.0), kInfinity);
  EXPECT_EQ(error_ratio(kInfinity, 1.0, kInfinity), kInfinity);
  EXPECT_EQ(error_ratio(-kInfinity, -kInfinity, 0.0), 0.0);
  EXPECT_EQ(error_ratio(-1e30, -kInfinity, 1.0), kInfinity);
  EXPECT_EQ(error_ratio(kNaN, kNaN, 1.0), 0.0);
  EXPECT_EQ(error_ratio(kInfinity, kNaN, 1.0), 0.0);
  EXPECT_EQ(error_ratio(1.0, kNaN, 1.0), kInfinity);
}

struct Evaluated {
  Case c;
  Arithmetic arithmetic;
  Trace trace;
};

Evaluated run(const std::string& backend, Case c) {
  const auto b = make_backend(backend);
  Evaluated result{std::move(c), {}, {}};
  result.arithmetic = b->arithmetic(result.c.config);
  result.trace = b->run(result.c, all_stages());
  return result;
}

/// Sequences of 5 + 3, 4 + 0 and 0 + 4 tokens in pages of 4, in the middle one of three layers.
Evaluated layer_run() {
  const char* const spec =
      R"({"config": {"entry_point": "forward", "variant": "attention_with_rope", "dtype": "float32",
          "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "hidden_size": 64,
          "kv_cache": {"page_size": 4}}, "rows": [[5, 3], [4, 0], [0, 4]], "layers": 3, "layer": 1})";
  return run("cpu", make_case(parse_case_spec(spec), 5));
}

Verdict judge(const Evaluated& r) { return compare(r.c, r.trace, r.arithmetic); }

TEST(NaNPolicy, NaNWhereANumberIsWanted) {
  Evaluated r = layer_run();
  r.trace[Stage::kAttnOut].set_value(17, kNaN);
  const Verdict verdict = judge(r);
  EXPECT_EQ(*verdict.first_bad, Stage::kAttnOut);
  const auto report = std::find_if(verdict.stages.begin(), verdict.stages.end(),
                                   [](const auto& s) { return s.stage == Stage::kAttnOut; });
  EXPECT_EQ(report->worst_ratio, kInfinity);
  EXPECT_EQ(
      report->note,
      "wrong in row 1 of 7 and head 0 of 2, right in all others; NaN or infinity in 1 elements");
  EXPECT_EQ(report->worst_where, "row 1 (sequence 0, position 6), head 0, channel 1");
}

TEST(NaNPolicy, NaNThatTheInputCarriesIsRight) {
  Evaluated r = layer_run();
  r.c.x.set_value(2 * 64, kNaN);  // the last row of sequence 0
  r = run("cpu", r.c);
  EXPECT_EQ(judge(r).status, Status::kPassed) << judge(r).detail;
  // A number in its place is wrong.
  r.trace[Stage::kOut].set_value(2 * 64, 0.0);
  EXPECT_EQ(*judge(r).first_bad, Stage::kOut);
}

TEST(CacheGuard, PriorTokensKeepTheirBits) {
  Evaluated r = layer_run();
  r.trace.cache.reset();
  Tensor& k = r.trace[Stage::kCacheK];
  k.set_value(4 * 8 + 2, std::nextafter(static_cast<float>(k.value(4 * 8 + 2)), 9.0f));
  const Verdict verdict = judge(r);
  EXPECT_EQ(*verdict.first_bad, Stage::kCacheK);
  EXPECT_THAT(verdict.detail, HasSubstr("sequence 0, position 4, head 0, channel 2"));
}

TEST(CacheGuard, NewTokensAreTheTappedRowsRounded) {
  Evaluated r = layer_run();
  r.trace.cache.reset();
  Tensor& v = r.trace[Stage::kCacheV];
  v.set_value(6 * 8, std::nextafter(static_cast<float>(v.value(6 * 8)), 9.0f));
  const Verdict verdict = judge(r);
  EXPECT_EQ(*verdict.first_bad, Stage::kCacheV);
  EXPECT_THAT(verdict.detail, HasSubstr("sequence 0, position 6"));
}

/// Changes one byte of a slot's first element of k.
void scribble(Evaluated& r, std::int64_t page, std::int64_t layer, std::int64_t slot) {
  KvCache& cache = *r.trace.cache;
  const std::int64_t at = ((page * cache.num_layers + layer) * cache.page_size + slot) * 8;
  cache.k.set_code(at, cache.k.code(at) ^ 1u);
}

TEST(CacheGuard, OtherLayersStay) {
  Evaluated r = layer_run();
  const std::int64_t page = r.c.cache.page_of(0, 6);  // a page that the call writes
  scribble(r, page, 2, 6 % 4);
  const Verdict verdict = judge(r);
  EXPECT_EQ(*verdict.first_bad, Stage::kCacheK);
  EXPECT_THAT(verdict.detail, HasSubstr("page " + std::to_string(page) + ", layer 2, slot 2"));
}

TEST(CacheGuard, UnusedSlotsStay) {
  Evaluated r = layer_run();  // sequence 1 holds 4 tokens; sequence 0 ends at slot 7 of 8
  scribble(r, r.c.cache.page_of(0, 3), 1, 3);  // a prior token
  EXPECT_EQ(*judge(r).first_bad, Stage::kCacheK);
}

TEST(CacheGuard, ForeignPagesStay) {
  Evaluated r = layer_run();
  std::vector<bool> owned(static_cast<std::size_t>(r.c.cache.num_pages()), false);
  for (std::int64_t b = 0; b < r.c.batch(); ++b) {
    for (std::int64_t p = 0; p < r.c.key_count(b); ++p) {
      owned[static_cast<std::size_t>(r.c.cache.page_of(b, p))] = true;
    }
  }
  const auto spare = std::find(owned.begin(), owned.end(), false) - owned.begin();
  ASSERT_LT(spare, r.c.cache.num_pages());
  scribble(r, spare, 1, 0);
  const Verdict verdict = judge(r);
  EXPECT_EQ(*verdict.first_bad, Stage::kCacheK);
  EXPECT_THAT(verdict.detail, HasSubstr("must not write"));
}

TEST(CacheGuard, NewSlotsHoldTheStage) {
  Evaluated r = layer_run();
  scribble(r, r.c.cache.page_of(0, 6), 1, 6 % 4);
  const Verdict verdict = judge(r);
  EXPECT_EQ(*verdict.first_bad, Stage::kCacheK);
  EXPECT_THAT(verdict.detail, HasSubstr("does not hold the row of cache_k"));
}

TEST(CacheGuard, PageTableStays) {
  Evaluated r = layer_run();
  r.trace.cache->page_table.set_code(0, r.trace.cache->page_table.code(0) + 1);
  EXPECT_THAT(judge(r).detail, HasSubstr("page table changed"));
}

TEST(CacheGuard, AttentionWritesNothing) {
  Evaluated r = run("cpu", golden_case("core-prefill-causal").c);
  ASSERT_EQ(judge(r).status, Status::kPassed) << judge(r).detail;
  r.trace.cache->v.set_code(0, r.trace.cache->v.code(0) ^ 1u);
  EXPECT_EQ(*judge(r).first_bad, Stage::kCacheV);
}

TEST(EmptyRows, AreExactlyZeroAndMinusInfinity) {
  Evaluated r = run("cpu", golden_case("core-zero-keys").c);
  ASSERT_EQ(judge(r).status, Status::kPassed);
  const Tensor& lse = r.trace[Stage::kLse];
  std::int64_t empty = 0;
  while (lse.value(empty) != -kInfinity) ++empty;  // [row, head]
  r.trace[Stage::kLse].set_value(empty, -1e30);
  EXPECT_EQ(*judge(r).first_bad, Stage::kLse);
  r.trace[Stage::kLse].set_value(empty, -kInfinity);
  Tensor& out = r.trace[Stage::kAttnOut];
  out.set_value(empty * r.c.config.head_dim_v, -0.0);
  EXPECT_EQ(judge(r).status, Status::kPassed);
  out.set_value(empty * r.c.config.head_dim_v, 1e-30);
  EXPECT_EQ(*judge(r).first_bad, Stage::kAttnOut);
}

TEST(EmptyRows, WithSinksLseIsTheSink) {
  Evaluated r = run("cpu", golden_case("core-zero-keys-sinks").c);
  ASSERT_EQ(judge(r).status, Status::kPassed);
  const std::int64_t heads = r.c.config.num_attention_heads;
  std::int64_t b = 0;
  while (r.c.key_count(b) != 0) ++b;
  const std::int64_t row = r.c.row_begin(b);
  Tensor& lse = r.trace[Stage::kLse];
  EXPECT_EQ(lse.value(row * heads), r.c.weights.at("sinks").value(0));
  lse.set_value(row * heads, -kInfinity);
  EXPECT_EQ(*judge(r).first_bad, Stage::kLse);
}

}  // namespace
}  // namespace attn::harness
