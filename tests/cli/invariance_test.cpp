#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/cli/program_runner.h"

namespace attn::test {
namespace {

using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using ::testing::Not;

constexpr const char* kDamaged = "damaged:cpu,stage=attn_out,row_shift";

/// The part of an output from a word on.
std::string from_word(const std::string& text, const std::string& word) {
  const std::size_t at = text.find(word);
  return at == std::string::npos ? "" : text.substr(at);
}

TEST(Invariance, RightBackendBreaksNothing) {
  const Outcome outcome = attn_compare({"invariance", "--backend", "cpu", "--cases", "40"});
  EXPECT_EQ(outcome.code, 0) << outcome.out << outcome.err;
  EXPECT_THAT(outcome.out, Not(HasSubstr("BROKEN")));
  EXPECT_THAT(last_line(outcome.out), MatchesRegex("[0-9]+ passed, 0 failed.*"));
}

TEST(Invariance, FirstBrokenRelationIsShownWithALineThatShowsItAgain) {
  const Outcome outcome =
      attn_compare({"invariance", "--backend", kDamaged, "--cases", "10", "--jobs", "2"});
  EXPECT_EQ(outcome.code, 1);
  const std::string block = from_word(outcome.out, "\nBROKEN ");
  ASSERT_THAT(block, HasSubstr("reproduce"));
  EXPECT_EQ(from_word(block.substr(1), "\nBROKEN "), "") << "more than one block";
  const std::string line = from_word(block, "attn-compare invariance");
  const Outcome again = shell(line.substr(0, line.find('\n')));
  EXPECT_EQ(again.code, 1) << again.out << again.err;
  const std::string repro = "  reproduce";
  EXPECT_EQ(from_word(again.out, "\nBROKEN ").substr(0, block.find(repro)),
            block.substr(0, block.find(repro)));
}

TEST(Invariance, OneNamedCase) {
  const Outcome outcome =
      attn_compare({"invariance", "--backend", "cpu", "--case", golden("core-prefill-causal"),
                    "--relations", "split_and_merge,row_alone,repeat", "--bitwise"});
  EXPECT_EQ(outcome.code, 0) << outcome.out << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("1 case on cpu"));
  EXPECT_THAT(outcome.out, HasSubstr("split_and_merge"));
  EXPECT_THAT(outcome.out, Not(HasSubstr("wide_window")));
}

TEST(Invariance, PlugInsAreAskedToo) {
  const std::string config =
      R"({"config": {"variant": "attention", "entry_point": "attention", "num_attention_heads": 4,
          "num_key_value_heads": 2, "head_dim": 16, "head_dim_v": 16, "dtype": "float32",
          "mask": {"variant": "causal"}, "kv_cache": {"page_size": 4}}, "rows": [[5, 9], [3, 7]]})";
  const Outcome outcome =
      attn_compare({"invariance", "--backend", ATTN_MINIMAL_PLUGIN, "--config", config});
  EXPECT_EQ(outcome.code, 0) << outcome.out << outcome.err;
  const Outcome unsupported =
      attn_compare({"invariance", "--backend", ATTN_MINIMAL_PLUGIN, "--case", golden("qk-norm")});
  EXPECT_EQ(unsupported.code, 1);
  EXPECT_THAT(unsupported.out, HasSubstr("1 unsupported"));
}

TEST(Invariance, WrongWordsAreRefused) {
  const Outcome relation =
      attn_compare({"invariance", "--backend", "cpu", "--relations", "page_permutatoin"});
  EXPECT_EQ(relation.code, 2);
  EXPECT_THAT(relation.err, HasSubstr("did you mean \"page_permutation\"?"));
  const Outcome gate = attn_compare({"invariance", "--backend", "cpu", "--gate", "nihgtly"});
  EXPECT_EQ(gate.code, 2);
  EXPECT_THAT(gate.err, HasSubstr("did you mean \"nightly\"?"));
  const Outcome both =
      attn_compare({"invariance", "--backend", "cpu", "--case", golden("qk-norm"), "--cases", "3"});
  EXPECT_EQ(both.code, 2);
  EXPECT_THAT(both.err, HasSubstr("leave one out"));
}

}  // namespace
}  // namespace attn::test
