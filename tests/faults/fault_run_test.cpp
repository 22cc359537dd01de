// The runner: what it says of a bug does not depend on how the work is dealt, and every way of
// running a case finds what lives only there.
#include "harness/faults/fault_run.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <mutex>
#include <set>
#include <string>
#include <tuple>

#include "harness/faults/faulty_library.h"
#include "harness/faults/score.h"
#include "harness/report/shard.h"
#include "reference/core/error.h"

namespace attn::harness {
namespace {

using testing::IsEmpty;

const std::vector<std::string> kSome{
    "kv_head_modulo",    "page_id_in_7_bits",   "q6_k_scale_of_32", "sinks_kept",
    "sum_order_by_call", "scratch_accumulator", "mask_top_left",    "values_added_backward"};

FaultRunOptions smoke(const std::vector<std::string>& only) {
  FaultRunOptions options;
  options.plan.gate = Gate::kSmoke;
  options.items = fault_items(only, false);
  return options;
}

using Outcome = std::tuple<bool, bool, std::int64_t, std::string, std::string, std::int64_t>;

std::map<std::string, Outcome> outcomes_of(const FaultRun& run) {
  std::map<std::string, Outcome> outcomes;
  for (const FaultOutcome& o : run.outcomes) {
    outcomes[std::string(o.fault->id)] = {o.reached, o.infected,    o.cases_to_kill,
                                          o.repro,   o.kill.detail, o.random_kills};
  }
  return outcomes;
}

TEST(FaultRun, DoesNotDependOnJobs) {
  FaultRunOptions options = smoke(kSome);
  options.random = 8;
  const auto alone = outcomes_of(run_faults(options));
  options.jobs = 3;
  EXPECT_EQ(alone, outcomes_of(run_faults(options)));
}

TEST(FaultRun, IsTheUnionOfItsShards) {
  const auto whole = outcomes_of(run_faults(smoke(kSome)));
  std::map<std::string, Outcome> joined;
  for (Shard shard{1, 3}; shard.index <= 3; ++shard.index) {
    FaultRunOptions options = smoke(kSome);
    std::erase_if(options.items, [&](const FaultItem& item) { return !shard.owns(item.number); });
    const auto part = outcomes_of(run_faults(options));
    EXPECT_LT(part.size(), whole.size());
    joined.insert(part.begin(), part.end());
  }
  EXPECT_EQ(whole, joined);
}

// What is kept of a run that is killed must be what the whole run finds.
TEST(FaultRun, SettlesEachBugOnceAndForGood) {
  FaultRunOptions options = smoke(kSome);
  options.jobs = 3;
  FaultRun settled;
  std::mutex mutex;
  options.settled = [&](const FaultOutcome& outcome) {
    const std::lock_guard lock(mutex);
    settled.outcomes.push_back(outcome);
  };
  const FaultRun run = run_faults(options);
  EXPECT_EQ(settled.outcomes.size(), kSome.size());
  EXPECT_EQ(outcomes_of(settled), outcomes_of(run));
}

// Of every bug that only a way of running shows, the plain run is right to the bit.
TEST(FaultRun, FindsInEachWayWhatLivesOnlyThere) {
  const GatePlan plan{Gate::kSmoke, 1, {}};
  const std::vector<PlannedCase> cases = covering_cases(plan);
  std::int64_t modes = 0;
  for (const FaultInfo& fault : fault_catalogue()) {
    if (fault.detector != Detector::kSecondCall && fault.detector != Detector::kRepeat &&
        fault.detector != Detector::kScratch) {
      continue;
    }
    ++modes;
    for (std::size_t i = 0; i < 24; ++i) {
      const Attempt attempt = FaultCase(cases[i], Oracle::kAll).run(fault, ExecMode::kPlain);
      EXPECT_FALSE(attempt.infected) << fault.id << " on case " << i;
    }
  }
  EXPECT_GE(modes, 8);
}

TEST(FaultRun, TellsSurvivorsApart) {
  // No window in it, one block of keys, no sinks: not reached. A control: infected, not killed.
  const CaseSpec spec = parse_case_spec(R"({"config": {"variant": "attention_with_rope",
      "dtype": "float32", "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16,
      "hidden_size": 64, "mask": {"variant": "causal"}, "kv_cache": {"page_size": 8}},
      "rows": [[6, 5]]})");
  const FaultCase c({spec, 7}, Oracle::kAll);
  EXPECT_THAT(c.false_alarm(), IsEmpty());
  const auto plain = [&](const char* id) { return c.run(find_fault(id), ExecMode::kPlain); };
  EXPECT_FALSE(plain("window_one_too_wide").reached);
  const Attempt control = plain("values_added_backward");
  EXPECT_TRUE(control.infected);
  EXPECT_FALSE(control.killed) << control.detail;
  const Attempt killed = plain("rope_offset_reset");
  EXPECT_TRUE(killed.killed);
  EXPECT_EQ(killed.stage, Stage::kQRope);
  EXPECT_EQ(plain("lse_base_2").detector, Detector::kLse);
  EXPECT_EQ(plain("page_table_ignored").detector, Detector::kGuard);
}

TEST(FaultRun, RefusesUnknownNames) {
  EXPECT_THROW(run_faults(smoke({"no_such_bug"})), Error);
  EXPECT_THROW(parse_gate("weekly"), Error);
  EXPECT_FALSE(find_oracle("all of them"));
}

TEST(Catalogue, CoversThePublicBugsOrSaysWhyNot) {
  // 9: the config's rules refuse it before any backend runs. 12: needs tensors of 2^31 elements
  // behind the plug-in interface. 24: a read out of range, planted as a plug-in.
  const std::set<int> elsewhere{9, 12, 24};
  std::set<int> rows;
  for (const FaultInfo& fault : fault_catalogue()) rows.insert(fault.row);
  for (int row = 1; row <= 40; ++row) {
    EXPECT_EQ(rows.contains(row), !elsewhere.contains(row)) << "row " << row;
  }
}

TEST(Catalogue, SaysWhatEachIs) {
  std::int64_t controls = 0;
  for (const FaultInfo& fault : fault_catalogue()) {
    EXPECT_FALSE(fault.summary.empty() || fault.trigger.empty()) << fault.id;
    EXPECT_LT(fault.summary.size(), 72U) << fault.id;
    controls += fault.equivalent_because.empty() ? 0 : 1;
  }
  EXPECT_GE(std::ssize(fault_catalogue()) - controls, 60);
  EXPECT_GE(controls, 3);
}

}  // namespace
}  // namespace attn::harness
