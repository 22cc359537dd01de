#include "harness/faults/fault_run.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <mutex>
#include <thread>

#include "harness/fuzz/case_source.h"
#include "harness/generate/profiles.h"
#include "reference/core/error.h"

namespace attn::harness {
namespace {

/// Every so manieth case is run in the other modes as well.
constexpr std::int64_t kModesEvery = 8;
/// Every so manieth case is judged on a control that is right: enough to show a false alarm.
constexpr std::int64_t kControlsEvery = 8;

std::vector<const FaultInfo*> chosen_faults(const FaultRunOptions& options) {
  std::vector<const FaultInfo*> chosen;
  for (const std::string& id : options.only) find_fault(id);  // for its message
  std::int64_t number = 0;
  for (const FaultInfo& fault : fault_catalogue()) {
    const bool is_named =
        options.only.empty() || std::ranges::find(options.only, fault.id) != options.only.end();
    if (is_named && options.shard.owns(number++)) chosen.push_back(&fault);
  }
  return chosen;
}

bool is_control(const FaultInfo& fault) { return !fault.equivalent_because.empty(); }

/// The work of a run: cases in order, dealt to threads.
class Runner {
 public:
  explicit Runner(const FaultRunOptions& options);
  FaultRun run();

 private:
  void work();
  void run_case(std::int64_t number, const std::vector<std::size_t>& alive);
  void try_fault(const FaultCase& c, std::int64_t number, const Case* before, std::size_t which);
  PlannedCase planned(std::int64_t number) const;

  const FaultRunOptions& options_;
  std::vector<PlannedCase> covering_;
  FaultRun result_;
  std::mutex mutex_;  // of all below and of result_
  std::int64_t next_ = 0;
  std::int64_t done_ = 0;
  std::exception_ptr failure_;
};

Runner::Runner(const FaultRunOptions& options) : options_(options) {
  if (!options.without_profile.empty()) find_profile(options.without_profile);  // for its message
  for (const FaultInfo* fault : chosen_faults(options)) {
    result_.outcomes.push_back({});
    result_.outcomes.back().fault = fault;
  }
  covering_ = covering_cases(options.plan);
  result_.cases = std::ssize(covering_);
  result_.random = options.random;
}

PlannedCase Runner::planned(std::int64_t number) const {
  PlannedCase planned = number < result_.cases ? covering_[static_cast<std::size_t>(number)]
                                               : random_case(options_.plan, number - result_.cases);
  if (planned.spec.profile == options_.without_profile) planned.spec.profile = "normal";
  return planned;
}

/// Runs one bug on a case, in every mode that is the case's, up to the first kill.
void Runner::try_fault(const FaultCase& c, std::int64_t number, const Case* before,
                       std::size_t which) {
  const FaultInfo& fault = *result_.outcomes[which].fault;
  std::vector<ExecMode> modes{ExecMode::kPlain};
  if (before != nullptr) {
    modes.insert(modes.end(), {ExecMode::kSecondCall, ExecMode::kRepeat, ExecMode::kDirtyScratch});
  }
  bool reached = false, infected = false;
  double seconds = 0.0;
  Attempt attempt;
  for (const ExecMode mode : modes) {
    attempt = c.run(fault, mode, before);
    reached |= attempt.reached;
    infected |= attempt.infected;
    seconds += attempt.seconds;
    if (attempt.killed) break;
  }
  const std::lock_guard lock(mutex_);
  FaultOutcome& outcome = result_.outcomes[which];
  if (number >= result_.cases) {
    outcome.random_kills += attempt.killed ? 1 : 0;
    return;
  }
  outcome.reached |= reached;
  outcome.infected |= infected;
  outcome.seconds_to_kill += seconds;
  if (attempt.killed && (!outcome.killed() || number + 1 < outcome.cases_to_kill)) {
    outcome.cases_to_kill = number + 1;
    outcome.kill = attempt;
    outcome.repro = c.c().repro;
  }
}

void Runner::run_case(std::int64_t number, const std::vector<std::size_t>& alive) {
  const FaultCase c(planned(number), options_.oracle);
  if (options_.oracle == Oracle::kAll) {
    const std::string alarm = c.false_alarm();
    const std::lock_guard lock(mutex_);
    if (!alarm.empty()) result_.false_alarms.push_back(alarm + "; " + c.c().repro);
  }
  std::unique_ptr<Case> before;
  if (number % kModesEvery == kModesEvery - 1) {
    const bool same_layer = number / kModesEvery % 2 == 0;
    PlannedCase other = planned(number - 1);
    if (same_layer) {
      const PlannedCase same = planned(number);
      const OtherCase lengths = other_case(same.spec, same.seed);
      other = {lengths.spec, lengths.seed};
    }
    before = std::make_unique<Case>(make_case(other.spec, other.seed));
  }
  for (const std::size_t which : alive) try_fault(c, number, before.get(), which);
}

void Runner::work() {
  const std::int64_t total = result_.cases + result_.random;
  std::unique_lock lock(mutex_);
  while (next_ < total && !failure_) {
    if (options_.stop && options_.stop()) {
      result_.stopped = true;
      return;
    }
    const std::int64_t number = next_++;
    // Those that no case before this one is known to kill: one that is still running may, and then
    // the first of the two counts.
    std::vector<std::size_t> alive;
    for (std::size_t i = 0; i < result_.outcomes.size(); ++i) {
      if (number < result_.cases && result_.outcomes[i].killed()) continue;
      if (is_control(*result_.outcomes[i].fault) && number % kControlsEvery != 0) continue;
      alive.push_back(i);
    }
    lock.unlock();
    try {
      if (!alive.empty()) run_case(number, alive);
      lock.lock();
    } catch (...) {
      lock.lock();
      if (!failure_) failure_ = std::current_exception();
    }
    ++done_;
    if (options_.progress) options_.progress(done_, total);
  }
}

FaultRun Runner::run() {
  const auto start = std::chrono::steady_clock::now();
  {
    std::vector<std::jthread> threads;
    for (int i = 1; i < options_.jobs; ++i) threads.emplace_back([this] { work(); });
    work();
  }
  if (failure_) std::rethrow_exception(failure_);
  std::ranges::sort(result_.false_alarms);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  result_.seconds = seconds.count();
  return std::move(result_);
}

}  // namespace

FaultRun run_faults(const FaultRunOptions& options) { return Runner(options).run(); }

}  // namespace attn::harness
