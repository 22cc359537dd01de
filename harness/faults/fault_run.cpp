#include "harness/faults/fault_run.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "harness/fuzz/case_source.h"
#include "harness/generate/profiles.h"
#include "reference/core/error.h"

namespace attn::harness {
namespace {

/// Every so manieth case is run in the other modes as well.
constexpr std::int64_t kModesEvery = 8;
/// Every so manieth case is judged on a control that is right: enough to show a false alarm.
constexpr std::int64_t kControlsEvery = 8;

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
  std::vector<std::size_t> alive_at(std::int64_t number) const;
  std::vector<FaultOutcome> take_settled(bool all);
  PlannedCase planned(std::int64_t number) const;

  const FaultRunOptions& options_;
  std::vector<PlannedCase> covering_;
  FaultRun result_;
  std::mutex mutex_;  // of all below and of result_
  std::int64_t next_ = 0;
  std::int64_t done_ = 0;
  std::set<std::int64_t> running_;  ///< cases that were begun and are not finished
  std::vector<char> is_settled_;    ///< by outcome
  std::exception_ptr failure_;
};

Runner::Runner(const FaultRunOptions& options) : options_(options) {
  if (!options.without_profile.empty()) find_profile(options.without_profile);  // for its message
  for (const FaultItem& item : options.items) {
    if (item.kind == FaultItem::Kind::kValueClean) result_.clean_item = item.number;
    if (item.kind != FaultItem::Kind::kValue) continue;
    FaultOutcome& outcome = result_.outcomes.emplace_back();
    outcome.item = item.number;
    outcome.fault = item.fault;
  }
  is_settled_.assign(result_.outcomes.size(), 0);
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
  if (options_.oracle == Oracle::kAll && result_.clean_item) {
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

/// The bugs to try on a case: those that no case before it is known to kill. One that is still
/// running may, and then the first of the two counts.
std::vector<std::size_t> Runner::alive_at(std::int64_t number) const {
  std::vector<std::size_t> alive;
  for (std::size_t i = 0; i < result_.outcomes.size(); ++i) {
    if (number < result_.cases && result_.outcomes[i].killed()) continue;
    if (is_control(*result_.outcomes[i].fault) && number % kControlsEvery != 0) continue;
    alive.push_back(i);
  }
  return alive;
}

/// Outcomes that no case can change any more, each once: killed by a case before all that are open.
/// With random cases after the gate's none is before the end.
std::vector<FaultOutcome> Runner::take_settled(bool all) {
  const std::int64_t open = running_.empty() ? next_ : *running_.begin();
  std::vector<FaultOutcome> settled;
  for (std::size_t i = 0; i < result_.outcomes.size(); ++i) {
    const FaultOutcome& outcome = result_.outcomes[i];
    const bool is_over = options_.random == 0 && outcome.killed() && outcome.cases_to_kill <= open;
    if (is_settled_[i] != 0 || !(all || is_over)) continue;
    is_settled_[i] = 1;
    settled.push_back(outcome);
  }
  return settled;
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
    running_.insert(number);
    const std::vector<std::size_t> alive = alive_at(number);
    std::vector<FaultOutcome> settled;
    lock.unlock();
    try {
      if (!alive.empty() || result_.clean_item) run_case(number, alive);
      lock.lock();
      running_.erase(number);
      settled = take_settled(false);
    } catch (...) {
      lock.lock();
      if (!failure_) failure_ = std::current_exception();
    }
    ++done_;
    if (options_.progress) options_.progress(done_, total);
    if (settled.empty() || !options_.settled) continue;
    lock.unlock();
    try {
      for (const FaultOutcome& outcome : settled) options_.settled(outcome);
      lock.lock();
    } catch (...) {
      lock.lock();
      if (!failure_) failure_ = std::current_exception();
    }
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
  if (!result_.stopped && options_.settled) {
    for (const FaultOutcome& outcome : take_settled(true)) options_.settled(outcome);
  }
  std::ranges::sort(result_.false_alarms);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  result_.seconds = seconds.count();
  return std::move(result_);
}

}  // namespace

FaultRun run_faults(const FaultRunOptions& options) { return Runner(options).run(); }

}  // namespace attn::harness
