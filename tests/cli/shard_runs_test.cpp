// fuzz and faults in shards are the whole run: dealt out, killed, run again and merged.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "harness/report/results.h"
#include "reference/core/error.h"
#include "tests/cli/program_runner.h"

namespace attn::test {
namespace {

using ::testing::HasSubstr;
using Words = std::vector<std::string>;

constexpr int kShards = 8;

Words joined(Words words, const Words& more) {
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

/// Rows of a report without what time does to them.
nlohmann::json rows_of(const std::string& path) {
  nlohmann::json rows = nlohmann::json::parse(read_file(path)).at("rows");
  for (nlohmann::json& row : rows) {
    row.erase("seconds");
    row.at("properties").erase("seconds_to_kill");
  }
  return rows;
}

/// Kills `words` some time into their work and returns how many items they had kept by then.
std::size_t kill_in_the_middle(const Words& words, const std::string& results) {
  // The first writes make the tables. A run that has ended, or only had its end still to come when
  // it was killed, is begun anew.
  int writes = 3;
  for (int attempt = 0; attempt < 40; ++attempt) {
    std::filesystem::remove(results);
    const Outcome outcome =
        attn_compare(joined(words, {"--jobs", "1"}), {.kill_when = written(results, writes)});
    if (outcome.code != 128 + 9) continue;
    try {
      const harness::ShardResults kept = harness::read_results(results);
      if (kept.finished) continue;
      if (!kept.items.empty()) return kept.items.size();
    } catch (const Error&) {  // killed before it had made its tables
    }
    ++writes;
  }
  return 0;
}

struct Run {
  std::string name;
  Words words;
  int code;  ///< of the whole run
};

class ShardsOf : public testing::TestWithParam<Run> {
 protected:
  const ScratchFolder scratch_;

  std::string file(int shard) const { return scratch_ / ("shard-" + std::to_string(shard)); }
  Words shard_words(int shard) const {
    return joined(GetParam().words,
                  {"--shard", std::to_string(shard) + "/" + std::to_string(kShards), "--results",
                   file(shard)});
  }
};

TEST_P(ShardsOf, OneIsKilledAndRunAgainAndTheMergeIsTheWholeRun) {
  constexpr int kKilled = 3;
  Words merge = {"report", "merge"};
  for (int shard = kShards; shard >= 1; --shard) {
    merge.push_back(file(shard));
    if (shard == kKilled) continue;
    const Outcome outcome = attn_compare(shard_words(shard));
    EXPECT_THAT(outcome.code, testing::AnyOf(0, GetParam().code)) << outcome.err;
  }
  const std::size_t kept = kill_in_the_middle(shard_words(kKilled), file(kKilled));
  ASSERT_GT(kept, 0U);
  const Outcome early = attn_compare(merge);
  EXPECT_EQ(early.code, 2);
  EXPECT_THAT(early.err, HasSubstr("shard 3/8 did not finish"));
  const Outcome again = attn_compare(shard_words(kKilled));
  EXPECT_THAT(again.code, testing::AnyOf(0, GetParam().code)) << again.err;
  EXPECT_THAT(again.err, HasSubstr(": " + std::to_string(kept)));

  const Outcome merged = attn_compare(
      joined(merge, {"--json", scratch_ / "merged.json", "--junit", scratch_ / "merged.xml"}));
  const Outcome whole = attn_compare(joined(GetParam().words, {"--json", scratch_ / "whole.json"}));
  EXPECT_EQ(whole.code, GetParam().code) << whole.out << whole.err;
  EXPECT_EQ(merged.code, whole.code) << merged.err;
  EXPECT_EQ(last_line(merged.out), last_line(whole.out));
  const nlohmann::json want = rows_of(scratch_ / "whole.json");
  const nlohmann::json got = rows_of(scratch_ / "merged.json");
  ASSERT_EQ(got.size(), want.size());
  for (std::size_t i = 0; i < want.size(); ++i) EXPECT_EQ(got[i], want[i]) << i;
  EXPECT_THAT(read_file(scratch_ / "merged.xml"),
              HasSubstr("tests=\"" + std::to_string(want.size()) + "\""));
}

INSTANTIATE_TEST_SUITE_P(
    Verbs, ShardsOf,
    testing::Values(
        // Cases that pass and cases that fail, with and without relations. The first cases of the
        // gates are the same; those of smoke are planned in a seventh of the time.
        Run{"fuzz",
            {"fuzz", "--gate", "smoke", "--backend", "faulty:window_one_too_wide", "--cases", "96",
             "--no-shrink", "--exec", "plain,second_call,dirty_scratch,repeat"},
            1},
        // Every kind of item: killed bugs, a survivor, a control, bugs of memory, no bug.
        Run{"faults",
            {"faults", "--gate", "smoke", "--only",
             "kv_head_modulo,sink_dropped,rope_offset_reset,lse_base_2,page_table_ignored,"
             "mask_top_left,scale_ignored,window_one_too_wide,empty_row_divided,"
             "values_added_backward,tail_slots_read,q_scaled_in_place,lse_dense"},
            0}),
    [](const auto& test) { return test.param.name; });

/// The accounts of a failing run: each shard shrinks for itself, the merge says each once.
TEST(ShardsOfFuzz, GiveOneAccountForEachMistake) {
  const ScratchFolder scratch;
  const Words run = {"fuzz", "--backend", "faulty:kv_head_modulo", "--cases", "40"};
  Words merge = {"report", "merge"};
  for (const std::string shard : {"1/2", "2/2"}) {
    merge.push_back(scratch / shard.substr(0, 1));
    EXPECT_EQ(attn_compare(joined(run, {"--shard", shard, "--results", merge.back()})).code, 1);
  }
  const Outcome merged = attn_compare(joined(merge, {"--corpus", scratch / "failures"}));
  const Outcome whole = attn_compare(run);
  EXPECT_EQ(merged.code, 1);
  EXPECT_EQ(last_line(merged.out), last_line(whole.out));
  const std::size_t first = merged.out.find("fails: faulty:kv_head_modulo");
  ASSERT_NE(first, std::string::npos) << merged.out;
  EXPECT_EQ(merged.out.find("fails: ", first + 1), std::string::npos) << merged.out;
  const std::string seen = whole.out.substr(whole.out.find("  seen in"));
  EXPECT_THAT(merged.out, HasSubstr(seen.substr(0, seen.find('\n'))));
  // What the merge stored is tried first by a later run.
  const Outcome again = attn_compare({"fuzz", "--backend", "faulty:kv_head_modulo", "--cases", "1",
                                      "--corpus", scratch / "failures"});
  EXPECT_EQ(again.code, 1);
  EXPECT_THAT(again.out, HasSubstr("1 corpus"));
}

/// A run that is killed goes on: nothing is done twice, nothing is lost, the output is the same.
TEST(ResumeOfFuzz, RepeatsNoCaseAndLosesNone) {
  const ScratchFolder scratch;
  const std::string journal = scratch / "journal";
  const Words run = {"fuzz",        "--gate", "smoke",
                     "--backend",   "cpu",    "--cases",
                     "24",          "--exec", "plain,second_call,dirty_scratch,repeat",
                     "--relations", "all"};
  const Words resumed = joined(run, {"--resume", journal});
  const auto lines = [&] {
    const std::string text = read_file(journal);
    return std::count(text.begin(), text.end(), '\n');
  };
  attn_compare(joined(resumed, {"--jobs", "1"}), {.kill_when = has_lines(journal, 3)});
  const std::ptrdiff_t kept = lines();
  ASSERT_GE(kept, 2);  // the first line says what run it is
  ASSERT_LT(kept, 25);
  const Outcome rest = attn_compare(resumed);
  EXPECT_THAT(rest.err, HasSubstr(": " + std::to_string(kept - 1) + " case"));
  EXPECT_EQ(lines(), 25);
  const Outcome whole = attn_compare(run);
  EXPECT_EQ(rest.out, whole.out);
  EXPECT_EQ(attn_compare(resumed).out, whole.out);
  EXPECT_EQ(lines(), 25);
  Words more = run;
  std::ranges::replace(more, std::string("24"), std::string("30"));
  const Outcome longer = attn_compare(joined(more, {"--resume", journal}));
  EXPECT_THAT(longer.err, HasSubstr(": 24 cases"));
  EXPECT_EQ(longer.out, attn_compare(more).out);
  EXPECT_EQ(lines(), 31);
  const Outcome other = attn_compare(joined(resumed, {"--seed", "2"}));
  EXPECT_EQ(other.code, 2);
  EXPECT_THAT(other.err, HasSubstr("of a run with other options"));
}

/// Failures come back with their account, so that a mistake is not told twice.
TEST(ResumeOfFuzz, KeepsTheAccounts) {
  const ScratchFolder scratch;
  const Words run = {"fuzz", "--backend", "faulty:kv_head_modulo", "--cases", "20"};
  const Outcome first = attn_compare(joined(run, {"--resume", scratch / "journal"}));
  EXPECT_EQ(first.code, 1);
  const Outcome again = attn_compare(joined(run, {"--resume", scratch / "journal"}));
  EXPECT_EQ(again.out, first.out);
  EXPECT_EQ(again.out, attn_compare(run).out);
}

TEST(WaiversOfFuzz, AcceptKnownFailuresAndAreJudgedThemselves) {
  const ScratchFolder scratch;
  const std::string waivers = scratch / "waivers.toml";
  write_file(waivers, R"([[waiver]]
when = "group_size > 1"
link = "https://example.org/issues/7"
expires = 2099-01-31
reason = "heads of a group"
)");
  const Words run = {"fuzz", "--backend", "faulty:kv_head_modulo", "--cases", "30"};
  EXPECT_EQ(attn_compare(run).code, 1);
  const Outcome waived = attn_compare(joined(run, {"--waivers", waivers}));
  EXPECT_THAT(last_line(waived.out), HasSubstr(" waived"));
  EXPECT_EQ(waived.out.find("fails: "), std::string::npos) << waived.out;
  // What is right needs none.
  const Outcome unused =
      attn_compare({"fuzz", "--backend", "cpu", "--cases", "10", "--waivers", waivers});
  EXPECT_EQ(unused.code, 1);
  EXPECT_THAT(unused.out, HasSubstr("waiver https://example.org/issues/7"));
}

}  // namespace
}  // namespace attn::test
