// A run in shards is the run: dealt out, killed, resumed and merged.
#include "harness/report/shard.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "harness/report/results.h"
#include "reference/core/error.h"
#include "tests/cli/program_runner.h"

namespace attn::test {
namespace {

using harness::Shard;
using ::testing::HasSubstr;
using Words = std::vector<std::string>;

constexpr int kShards = 8;

Words joined(Words words, const Words& more) {
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

/// Rows without what time does to them.
nlohmann::json rows_of(const std::string& path) {
  nlohmann::json rows = nlohmann::json::parse(read_file(path)).at("rows");
  for (nlohmann::json& row : rows) row.erase("seconds");
  return rows;
}

TEST(Shard, EveryItemIsOfOneShard) {
  for (const std::int64_t count : {1, 2, 3, 8}) {
    for (std::int64_t item = 0; item < 50; ++item) {
      int owners = 0;
      for (std::int64_t index = 1; index <= count; ++index)
        owners += Shard{index, count}.owns(item);
      EXPECT_EQ(owners, 1) << item << " of " << count;
    }
  }
}

TEST(Shard, WordsThatAreNoneAreRefused) {
  EXPECT_EQ(harness::parse_shard("3/8"), (Shard{3, 8}));
  for (const std::string word :
       {"0/8", "9/8", "3", "3/", "/8", "a/b", "1/0", "-1/2", "1/2/3", ""}) {
    EXPECT_THROW(harness::parse_shard(word), Error) << word;
  }
}

class Shards : public testing::Test {
 protected:
  const ScratchFolder scratch_;
  // Some files of it pass, some are unsupported: both must come back.
  const Words run_ = {"verify", "data/golden", "--backend", std::string(ATTN_BAD_PLUGIN) + ":slow",
                      "--allow-unsupported"};

  std::string file(int shard) const { return scratch_ / ("shard-" + std::to_string(shard)); }
  Words shard_words(int shard) const {
    return joined(run_, {"--shard", std::to_string(shard) + "/" + std::to_string(kShards),
                         "--results", file(shard)});
  }
  Words merge_words() const {
    Words words = {"report", "merge"};
    for (int shard = kShards; shard >= 1; --shard) words.push_back(file(shard));
    return words;
  }
};

TEST_F(Shards, OneIsKilledAndRunAgainAndTheMergeIsTheWholeRun) {
  for (int shard = 1; shard <= kShards; ++shard) {
    if (shard == 5) continue;
    EXPECT_EQ(attn_compare(shard_words(shard)).code, 0);
  }
  std::size_t finished = 0;
  // Killed in the middle of its work. A run that has ended, or only had its end still to come when
  // it was killed, is begun anew.
  int writes = 3;
  for (int attempt = 0; finished == 0 && attempt < 40; ++attempt) {
    std::filesystem::remove(file(5));
    const Outcome killed = attn_compare(joined(shard_words(5), {"--jobs", "1"}),
                                        {.kill_when = written(file(5), writes)});
    if (killed.code != 128 + 9) continue;
    try {
      const harness::ShardResults kept = harness::read_results(file(5));
      if (kept.finished) continue;
      finished = kept.items.size();
    } catch (const Error&) {  // killed before it had made its tables
    }
    ++writes;
  }
  ASSERT_GT(finished, 0U);
  const Outcome early = attn_compare(merge_words());
  EXPECT_EQ(early.code, 2);
  EXPECT_THAT(early.err, HasSubstr("shard 5/8 did not finish"));
  const Outcome again = attn_compare(shard_words(5));
  EXPECT_EQ(again.code, 0) << again.err;
  EXPECT_THAT(again.err, HasSubstr(std::to_string(finished) + " file"));

  const Outcome merged = attn_compare(joined(
      merge_words(), {"--json", scratch_ / "merged.json", "--junit", scratch_ / "merged.xml"}));
  const Outcome whole = attn_compare(joined(run_, {"--json", scratch_ / "whole.json"}));
  EXPECT_EQ(merged.code, whole.code) << merged.err;
  EXPECT_EQ(last_line(merged.out), last_line(whole.out));
  const nlohmann::json want = rows_of(scratch_ / "whole.json");
  const nlohmann::json got = rows_of(scratch_ / "merged.json");
  ASSERT_EQ(got.size(), want.size());
  for (std::size_t i = 0; i < want.size(); ++i) EXPECT_EQ(got[i], want[i]) << i;
  EXPECT_THAT(read_file(scratch_ / "merged.xml"),
              HasSubstr("tests=\"" + std::to_string(want.size()) + "\""));
}

/// Two files in two shards, which the tests below spoil.
class TwoShards : public testing::Test {
 protected:
  const ScratchFolder scratch_;
  const std::string one_ = scratch_ / "one", two_ = scratch_ / "two";

  static Words words(const std::string& shard, const std::string& results, const Words& more = {}) {
    return joined({"verify", golden("qk-norm"), golden("mask-null"), "--backend", "cpu", "--shard",
                   shard, "--results", results},
                  more);
  }
  void SetUp() override {
    ASSERT_EQ(attn_compare(words("1/2", one_)).code, 0);
    ASSERT_EQ(attn_compare(words("2/2", two_)).code, 0);
  }
  static void expect_refused(const Words& files, const std::string& why, int code = 2) {
    const Outcome outcome = attn_compare(joined({"report", "merge"}, files));
    EXPECT_EQ(outcome.code, code) << outcome.out;
    EXPECT_THAT(outcome.err, HasSubstr(why));
    EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
  }
};

TEST_F(TwoShards, MergeRefusesWhatIsNoWholeRun) {
  EXPECT_EQ(attn_compare({"report", "merge", one_, two_}).code, 0);
  expect_refused({one_}, "shard 2/2 of this run is missing");
  expect_refused({one_, two_, one_}, "name each shard once");
  const std::string other = scratch_ / "other";
  ASSERT_EQ(attn_compare(words("2/2", other, {"--page-seed", "2"})).code, 0);
  expect_refused({one_, other}, "--page-seed 2");
  const std::string three = scratch_ / "three";
  ASSERT_EQ(attn_compare(words("2/3", three)).code, 0);
  expect_refused({one_, three}, "numbers of shards");
  write_file(scratch_ / "text", "no database");
  expect_refused({one_, scratch_ / "text"}, "is no result file", 3);
  expect_refused({one_, scratch_ / "nothing"}, "cannot be opened", 3);
}

TEST_F(TwoShards, AFileOfAnotherShardOrRunIsNotOverwritten) {
  const std::string bytes = read_file(one_);
  for (const Words& run : {words("2/2", one_), words("1/2", one_, {"--no-taps"})}) {
    const Outcome outcome = attn_compare(run);
    EXPECT_EQ(outcome.code, 2);
    EXPECT_THAT(outcome.err, HasSubstr("is of another run"));
  }
  EXPECT_EQ(read_file(one_), bytes);
}

TEST_F(TwoShards, AFailureInOneShardFailsTheMerge) {
  const std::string damaged = "damaged:cpu,stage=attn_out";
  Words files = {"report", "merge"};
  for (const std::string shard : {"1/2", "2/2"}) {
    files.push_back(scratch_ / ("bad" + shard.substr(0, 1)));
    const Outcome outcome =
        attn_compare({"verify", golden("qk-norm"), golden("materialize-kv"), "--backend", damaged,
                      "--shard", shard, "--results", files.back()});
    EXPECT_EQ(outcome.code, shard == "1/2" ? 1 : 0);  // a cache case has nothing to damage
  }
  const Outcome merged = attn_compare(files);
  EXPECT_EQ(merged.code, 1);
  EXPECT_THAT(merged.out, HasSubstr("FAILED"));
}

TEST(ShardOfVerify, MayHaveNothingToDo) {
  const ScratchFolder scratch;
  const Outcome outcome = attn_compare({"verify", golden("qk-norm"), "--backend", "cpu", "--shard",
                                        "2/2", "--results", scratch / "r"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("no file is left for this shard"));
}

}  // namespace
}  // namespace attn::test
