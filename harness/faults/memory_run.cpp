#include "harness/faults/memory_run.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "harness/backends/backend_failure.h"
#include "harness/backends/worker.h"

namespace attn::harness {
namespace {

using Clock = std::chrono::steady_clock;

std::unique_ptr<Backend> plugin_with(const std::string& file, std::string_view fault) {
  return make_isolated_backend(file + ":fault=" + std::string(fault), Isolation());
}

/// What became of one case: nothing when it passed.
std::optional<Attempt> failure_of(const Backend& backend, const Case& c) {
  Attempt attempt;
  attempt.reached = attempt.infected = attempt.killed = true;
  try {
    const Trace trace = backend.run(c, stages_of(c.config));
    CompareOptions options;
    options.check_trust = false;  // a mistrusted case fails nothing
    const Verdict verdict = compare(c, trace, backend.arithmetic(c.config), options);
    if (verdict.status == Status::kPassed) return std::nullopt;
    attempt.detector = detector_of(verdict);
    attempt.stage = verdict.first_bad;
    attempt.detail = verdict.detail;
  } catch (const BackendFailure& failure) {  // of the guards around the tensors
    attempt.detector = Detector::kGuard;
    attempt.detail = failure.what();
  }
  return attempt;
}

/// One bug after the other, each by one thread.
class MemoryRunner {
 public:
  explicit MemoryRunner(const MemoryRunOptions& options);
  FaultRun run();

 private:
  void work();
  void run_clean();
  FaultOutcome run_fault(const FaultItem& item) const;
  bool is_stopped() const { return options_.stop && options_.stop(); }

  const MemoryRunOptions& options_;
  const std::string file_ = faulty_memory_plugin();
  std::vector<Case> cases_;
  std::vector<FaultItem> items_;
  FaultRun result_;
  std::mutex mutex_;  // of all below and of result_
  std::size_t next_ = 0;
  std::int64_t done_ = 0;
  std::exception_ptr failure_;
};

MemoryRunner::MemoryRunner(const MemoryRunOptions& options) : options_(options) {
  for (const FaultItem& item : options.items) {
    const bool is_clean = item.kind == FaultItem::Kind::kMemoryClean;
    if (is_clean) result_.clean_item = item.number;
    if (is_clean || item.kind == FaultItem::Kind::kMemory) items_.push_back(item);
  }
  if (items_.empty()) return;
  const std::unique_ptr<Backend> right = plugin_with(file_, "none");
  for (const PlannedCase& planned : covering_cases(options.plan)) {
    // Around the kernel of a whole layer is ours, which costs time and shows no more.
    const AttentionConfig& config = planned.spec.config;
    if (!config.starts_at_attention() || !right->unsupported_reason(config).empty()) continue;
    cases_.push_back(make_case(planned.spec, planned.seed));
  }
  result_.cases = std::ssize(cases_);
}

FaultOutcome MemoryRunner::run_fault(const FaultItem& item) const {
  FaultOutcome outcome;
  outcome.item = item.number;
  outcome.fault = item.fault;
  const Clock::time_point start = Clock::now();
  const std::unique_ptr<Backend> backend = plugin_with(file_, item.fault->id);
  for (std::size_t i = 0; i < cases_.size() && !outcome.killed() && !is_stopped(); ++i) {
    std::optional<Attempt> failure = failure_of(*backend, cases_[i]);
    if (!failure) continue;
    outcome.reached = outcome.infected = true;
    outcome.cases_to_kill = static_cast<std::int64_t>(i) + 1;
    outcome.kill = std::move(*failure);
    outcome.repro = cases_[i].repro;
  }
  outcome.seconds_to_kill = std::chrono::duration<double>(Clock::now() - start).count();
  return outcome;
}

void MemoryRunner::run_clean() {
  const std::unique_ptr<Backend> right = plugin_with(file_, "none");
  for (const Case& c : cases_) {
    if (is_stopped()) return;
    const std::optional<Attempt> failure = failure_of(*right, c);
    if (!failure) continue;
    const std::lock_guard lock(mutex_);
    result_.false_alarms.push_back(failure->detail + "; " + c.repro);
  }
}

void MemoryRunner::work() {
  std::unique_lock lock(mutex_);
  while (next_ < items_.size() && !failure_) {
    if (is_stopped()) {
      result_.stopped = true;
      return;
    }
    const FaultItem item = items_[next_++];
    lock.unlock();
    std::optional<FaultOutcome> outcome;
    try {
      if (item.fault == nullptr) {
        run_clean();
      } else {
        outcome = run_fault(item);
        // One that was cut short is not known.
        if (options_.settled && !is_stopped()) options_.settled(*outcome);
      }
      lock.lock();
    } catch (...) {
      lock.lock();
      if (!failure_) failure_ = std::current_exception();
    }
    if (outcome) result_.outcomes.push_back(std::move(*outcome));
    ++done_;
    if (options_.progress) options_.progress(done_, std::ssize(items_));
  }
}

FaultRun MemoryRunner::run() {
  const Clock::time_point start = Clock::now();
  {
    std::vector<std::jthread> threads;
    const auto most = static_cast<int>(std::min<std::size_t>(items_.size(), 64));
    for (int i = 1; i < std::min(options_.jobs, most); ++i) {
      threads.emplace_back([this] { work(); });
    }
    work();
  }
  if (failure_) std::rethrow_exception(failure_);
  result_.stopped = result_.stopped || is_stopped();
  std::ranges::sort(result_.outcomes, {}, &FaultOutcome::item);
  std::ranges::sort(result_.false_alarms);
  result_.seconds = std::chrono::duration<double>(Clock::now() - start).count();
  return std::move(result_);
}

}  // namespace

FaultRun run_memory_faults(const MemoryRunOptions& options) { return MemoryRunner(options).run(); }

}  // namespace attn::harness
