// Waivers: what they accept is counted apart, and they are judged themselves.
#include "harness/report/waivers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "harness/generate/case_spec.h"
#include "harness/report/predicate.h"
#include "reference/core/error.h"
#include "tests/cli/program_runner.h"

namespace attn::test {
namespace {

using harness::facts_of;
using harness::parse_predicate;
using harness::Waivers;
using ::testing::HasSubstr;

Case some_case() {
  return harness::make_case(harness::parse_case_spec(
                                R"({"config": {"variant": "attention", "entry_point": "attention",
              "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 16, "head_dim_v": 16,
              "dtype": "float32", "mask": {"variant": "chunked_causal", "chunk_size": 4},
              "kv_cache": {"page_size": 4}}, "rows": [[5, 9], [3, 17]]})"),
                            1);
}

TEST(Predicate, SaysWhetherACaseIsMeant) {
  const harness::Facts facts = facts_of(some_case());
  for (const std::string text :
       {"mask == chunked_causal", "mask.variant == \"chunked_causal\" && head_dim == 16",
        "head_dim > 128 || group_size >= 4", "!(head_dim > 128) && mask.chunk_size <= 4",
        "logit_softcap == null", "quant == null && dtype != bfloat16", "batch == 2 && keys == 17",
        "tokens < 9 && kv_cache.page_size == 4", "! use_qk_norm", "case == seed-1",
        "head_dim == 1 && head_dim == 2 || tokens == 8"}) {
    EXPECT_TRUE(parse_predicate(text)(facts)) << text;
    EXPECT_FALSE(parse_predicate("!(" + text + ")")(facts)) << text;
  }
  for (const std::string text : {"head_dim > 16", "mask < 3", "use_qk_norm", "logit_softcap > 0",
                                 "tokens == 8 && (head_dim == 1 || head_dim == 2)"}) {
    EXPECT_FALSE(parse_predicate(text)(facts)) << text;
  }
}

TEST(Predicate, RefusesWhatItCannotRead) {
  for (const std::string text :
       {"", "head_dim >", "head_dim == 16 &&", "(head_dim == 16", "head_dim == 16)",
        "head_dim = 16", "== 3", "dtype == \"float32"}) {
    EXPECT_THROW(parse_predicate(text), Error) << text;
  }
  try {
    parse_predicate("haed_dim == 16");
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("did you mean \"head_dim\"?"));
  }
}

std::string waiver(const std::string& when, const std::string& expires = "2999-01-31",
                   const std::string& more = "") {
  return "[[waiver]]\nwhen = '" + when +
         "'\nlink = \"https://example.org/issues/7\"\nexpires = " + expires +
         "\nreason = \"known\"\n" + more;
}

TEST(Waiver, LastsUntilTheEndOfItsDay) {
  const std::string text = waiver("head_dim == 16", "2027-01-31");
  for (const auto& [today, holds] : {std::pair{"2027-01-31", true}, {"2027-02-01", false}}) {
    harness::ReportRow row;
    row.verdict.status = harness::Status::kFailed;
    const Waivers waivers = Waivers::parse(text, "w.toml", today);
    waivers.apply(some_case(), row);
    EXPECT_EQ(is_waived(row), holds) << today;
    const auto complaints = waivers.complaints({row}, true);
    ASSERT_EQ(complaints.size(), holds ? 0U : 1U);
    if (holds) continue;
    EXPECT_THAT(complaints[0].verdict.detail, HasSubstr("expired on 2027-01-31"));
  }
}

TEST(Waiver, FilesThatAreWrongAreRefusedWithTheWaiversNumber) {
  const std::string good = waiver("head_dim == 16");
  for (const auto& [text, why] :
       {std::pair<std::string, const char*>{"[[waiver]]\nwhen = 'head_dim == 1'\n", "needs link"},
        {waiver("head_dmi == 1"), "did you mean \"head_dim\"?"},
        {waiver("head_dim == 1", "\"soon\""), "needs a last day"},
        {waiver("head_dim == 1", "2027-01-31", "baackend = 'x'\n"), "did you mean \"backend\"?"},
        {good + good, "waiver 2: has the link of another one"},
        {"waivers = 3\n", "holds more than"},
        {"[[waiver\n", "w.toml"}}) {
    try {
      Waivers::parse(text, "w.toml");
      ADD_FAILURE() << text;
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), HasSubstr(why)) << text;
    }
  }
}

/// Two files of which a damaged backend fails one: the other has no stage to damage.
class WaiversOfVerify : public testing::Test {
 protected:
  const ScratchFolder scratch_;
  const std::string damaged_ = "damaged:cpu,stage=q_norm";
  Outcome verify(const std::string& waivers, const std::string& backend = "",
                 const std::vector<std::string>& more = {}) const {
    write_file(scratch_ / "w.toml", waivers);
    std::vector<std::string> words = {"verify",
                                      golden("qk-norm"),
                                      golden("mha-causal-f32"),
                                      "--backend",
                                      backend.empty() ? damaged_ : backend,
                                      "--waivers",
                                      scratch_ / "w.toml"};
    words.insert(words.end(), more.begin(), more.end());
    return attn_compare(words);
  }
};

TEST_F(WaiversOfVerify, AKnownFailureIsCountedApart) {
  const Outcome outcome = verify(waiver("use_qk_norm"), "", {"--json", scratch_ / "r.json"});
  EXPECT_EQ(outcome.code, 0) << outcome.out << outcome.err;
  EXPECT_EQ(last_line(outcome.out), "1 passed, 0 failed, 1 waived");
  EXPECT_THAT(outcome.out, HasSubstr("https://example.org/issues/7"));
  EXPECT_THAT(read_file(scratch_ / "r.json"), HasSubstr("\"status\": \"waived\""));
}

TEST_F(WaiversOfVerify, OnlyOnItsBackend) {
  const std::string other = waiver("use_qk_norm", "2999-01-31", "backend = \"exact\"\n");
  EXPECT_EQ(verify(other).code, 1);
  const std::string family = waiver("use_qk_norm", "2999-01-31", "backend = \"damaged\"\n");
  EXPECT_EQ(verify(family).code, 0);
}

TEST_F(WaiversOfVerify, AnExpiredOneFailsAndWaivesNothing) {
  const Outcome outcome = verify(waiver("use_qk_norm", "2020-01-31"));
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.out, HasSubstr("expired on 2020-01-31"));
  EXPECT_EQ(last_line(outcome.out), "1 passed, 2 failed");
}

TEST_F(WaiversOfVerify, AnUnusedOneFails) {
  const Outcome outcome = verify(waiver("use_qk_norm"), "cpu");
  EXPECT_EQ(outcome.code, 1);
  const Outcome none = verify(waiver("head_dim == 7"), "cpu");
  EXPECT_EQ(none.code, 1);
  EXPECT_THAT(none.out, HasSubstr("waived nothing in this run"));
}

TEST_F(WaiversOfVerify, OneThatMatchesEverythingFails) {
  const Outcome outcome = verify(waiver("head_dim > 0"), "cpu");
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.out, HasSubstr("is too wide: it matches 2 rows that passed and 0"));
}

TEST_F(WaiversOfVerify, OfShardsTheMergeDecides) {
  std::vector<std::string> merge = {"report", "merge"};
  for (const std::string shard : {"1/2", "2/2"}) {
    merge.push_back(scratch_ / ("r" + shard.substr(0, 1)));
    const Outcome outcome =
        verify(waiver("use_qk_norm"), "", {"--shard", shard, "--results", merge.back()});
    EXPECT_EQ(outcome.code, 0) << outcome.out << outcome.err;  // shard 2 waives nothing
  }
  const Outcome merged = attn_compare(merge);
  EXPECT_EQ(merged.code, 0) << merged.out << merged.err;
  EXPECT_EQ(last_line(merged.out), "1 passed, 0 failed, 1 waived");
  for (std::size_t i = 0; i < 2; ++i) {
    merge[2 + i] += "u";
    verify(waiver("head_dim == 7"), "",
           {"--shard", i == 0 ? "1/2" : "2/2", "--results", merge[2 + i]});
  }
  const Outcome unused = attn_compare(merge);
  EXPECT_EQ(unused.code, 1);
  EXPECT_THAT(unused.out, HasSubstr("waived nothing in this run"));
}

}  // namespace
}  // namespace attn::test
