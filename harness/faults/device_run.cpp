#include "harness/faults/device_run.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>
#include <utility>

#include "harness/backends/execution.h"
#include "harness/faults/faulty_library.h"
#include "harness/faults/library/faulty_entry.h"
#include "harness/fuzz/case_source.h"
#include "reference/core/error.h"

namespace attn::harness {
namespace {

bool same_bits(const Trace& a, const Trace& b) {
  return a.stages == b.stages && a.cache == b.cache;
}

bool is_device_lost(const Error& error) { return error.field() == kDeviceLost; }

/// A case of the gate in its mode, with what the build without bugs gives for it.
class DeviceCase {
 public:
  explicit DeviceCase(const PlannedCase& planned)
      : case_(make_case(planned.spec, planned.seed)),
        mode_(dealt_mode(planned.seed)),
        wanted_(stages_of(case_.config)) {
    const OtherCase made = other_case(planned.spec, planned.seed);
    other_ = make_case(made.spec, made.seed);
    const auto right = FaultyLibrary::cuda().make("none");
    arithmetic_ = right->arithmetic(case_.config);
    right_ = execute(*right, mode_, case_, &other_, wanted_);
  }

  const Case& c() const { return case_; }
  ExecMode mode() const { return mode_; }
  std::string false_alarm() const {
    Attempt attempt;
    judge(right_, attempt);
    return attempt.killed ? std::string(name_of(mode_)) + ": " + attempt.detail : "";
  }
  Attempt run(const FaultInfo& fault) const;

 private:
  void judge(const Trace& trace, Attempt& attempt) const {
    CompareOptions options;
    options.check_trust = false;  // a mistrusted case fails nothing
    const Verdict verdict = compare(case_, trace, arithmetic_, options);
    if (verdict.status != Status::kFailed) return;
    attempt.killed = true;
    attempt.stage = verdict.first_bad;
    attempt.detail = verdict.detail;
  }

  Case case_;
  Case other_;
  ExecMode mode_;
  std::vector<Stage> wanted_;
  Arithmetic arithmetic_;
  Trace right_;
};

Attempt DeviceCase::run(const FaultInfo& fault) const {
  Attempt attempt;
  attempt.mode = mode_;
  const FaultyLibrary& library = FaultyLibrary::cuda();
  try {
    const Trace trace = execute(*library.make(fault.id), mode_, case_, &other_, wanted_);
    attempt.reached = library.reached_by_last_run() > 0;
    attempt.infected = attempt.reached && !same_bits(trace, right_);
    if (attempt.infected) judge(trace, attempt);
  } catch (const Error& error) {
    if (is_device_lost(error)) throw;
    attempt.reached = attempt.infected = attempt.killed = true;
    attempt.detail = error.what();
  } catch (const std::exception& error) {  // bits that differ, padding that is not as declared
    attempt.reached = attempt.infected = attempt.killed = true;
    attempt.detail = error.what();
  }
  return attempt;
}

class DeviceRunner {
 public:
  explicit DeviceRunner(const DeviceFaultOptions& options)
      : options_(options), cases_(covering_cases(options.plan)) {
    for (const std::string& id : options.only) find_device_fault(id);  // for its message
    for (const std::string_view id : FaultyLibrary::cuda().ids()) {
      if (!options.only.empty() && std::ranges::find(options.only, id) == options.only.end()) {
        continue;
      }
      result_.outcomes.emplace_back().fault = &find_device_fault(id);
    }
    result_.cases = std::ssize(cases_);
  }

  DeviceFaultRun run() {
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

 private:
  void work();
  void run_case(std::int64_t number);
  std::vector<std::size_t> alive();

  const DeviceFaultOptions& options_;
  std::vector<PlannedCase> cases_;
  DeviceFaultRun result_;
  std::mutex mutex_;  // of all below and of result_
  std::int64_t next_ = 0;
  std::int64_t done_ = 0;
  std::exception_ptr failure_;
};

std::vector<std::size_t> DeviceRunner::alive() {
  const std::lock_guard lock(mutex_);
  std::vector<std::size_t> numbers;
  for (std::size_t i = 0; i < result_.outcomes.size(); ++i) {
    if (!result_.outcomes[i].killed()) numbers.push_back(i);
  }
  return numbers;
}

void DeviceRunner::run_case(std::int64_t number) {
  const DeviceCase c(cases_[static_cast<std::size_t>(number)]);
  if (const std::string alarm = c.false_alarm(); !alarm.empty()) {
    const std::lock_guard lock(mutex_);
    result_.false_alarms.push_back(alarm + "; " + c.c().repro);
  }
  for (const std::size_t which : alive()) {
    const Attempt attempt = c.run(*result_.outcomes[which].fault);
    const std::lock_guard lock(mutex_);
    DeviceFaultOutcome& outcome = result_.outcomes[which];
    outcome.reached |= attempt.reached;
    outcome.infected |= attempt.infected;
    // Of two cases that ran beside each other the earlier counts.
    if (!attempt.killed || (outcome.killed() && outcome.cases_to_kill <= number + 1)) continue;
    outcome.cases_to_kill = number + 1;
    outcome.kill = attempt;
    outcome.repro = c.c().repro;
  }
}

void DeviceRunner::work() {
  std::unique_lock lock(mutex_);
  while (next_ < result_.cases && !failure_) {
    if (options_.stop && options_.stop()) {
      result_.stopped = true;
      return;
    }
    const std::int64_t number = next_++;
    lock.unlock();
    try {
      run_case(number);
      lock.lock();
    } catch (...) {
      lock.lock();
      if (!failure_) failure_ = std::current_exception();
    }
    ++done_;
    if (options_.progress) options_.progress(done_, result_.cases);
  }
}

}  // namespace

std::int64_t DeviceFaultRun::killed() const {
  return std::ranges::count_if(outcomes, [](const DeviceFaultOutcome& o) { return o.killed(); });
}

DeviceFaultRun run_device_faults(const DeviceFaultOptions& options) {
  return DeviceRunner(options).run();
}

std::string device_fault_json(const DeviceFaultRun& run, const std::string& gate,
                              const std::string& device, const std::string& commit) {
  nlohmann::ordered_json survivors = nlohmann::ordered_json::array();
  nlohmann::ordered_json faults = nlohmann::ordered_json::object();
  for (const DeviceFaultOutcome& o : run.outcomes) {
    nlohmann::ordered_json fault{{"reached", o.reached}, {"infected", o.infected}};
    fault["killed"] = o.killed();
    if (o.killed()) {
      fault["case"] = o.cases_to_kill;
      fault["mode"] = name_of(o.kill.mode);
      if (o.kill.stage) fault["stage"] = name_of(*o.kill.stage);
    } else {
      survivors.push_back(o.fault->id);
    }
    faults[std::string(o.fault->id)] = fault;
  }
  const nlohmann::ordered_json json{
      {"schema_version", 1},    {"device", device},
      {"commit", commit},       {"gate", gate},
      {"cases", run.cases},     {"planted", std::ssize(run.outcomes)},
      {"killed", run.killed()}, {"false_alarms", std::ssize(run.false_alarms)},
      {"survivors", survivors}, {"faults", faults}};
  return json.dump(1) + "\n";
}

}  // namespace attn::harness
