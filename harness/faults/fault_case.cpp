#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstring>
#include <limits>

#include "harness/backends/execution.h"
#include "harness/faults/fault_run.h"
#include "harness/faults/faulty_library.h"

namespace attn::harness {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

bool same_bits(const Trace& a, const Trace& b) {
  return a.stages == b.stages && a.cache == b.cache;
}

/// The last stage that a case of this config has.
Stage last_stage(const AttentionConfig& config) { return stages_of(config).back(); }

/// The trace with its last stage alone; the caches, where they are the last.
Trace final_only(const AttentionConfig& config, const Trace& trace) {
  Trace result;
  const Stage last = last_stage(config);
  result[last] = trace[last];
  if (last == Stage::kCacheV) result[Stage::kCacheK] = trace[Stage::kCacheK];
  return result;
}

Detector detector_of(ExecMode mode, const Verdict& verdict) {
  switch (mode) {
    case ExecMode::kSecondCall:
      return Detector::kSecondCall;
    case ExecMode::kDirtyScratch:
      return Detector::kScratch;
    case ExecMode::kRepeat:
      return Detector::kRepeat;
    default:
      return detector_of(verdict);
  }
}

/// The rule of many suites, on the last stage.
Verdict within_tolerance(const Trace& trace, const Trace& right, Stage last) {
  constexpr double kTolerance = 1e-2;
  Verdict verdict;
  const std::vector<double> got = trace[last].values();
  const std::vector<double> want = right[last].values();
  for (std::size_t i = 0; i < got.size(); ++i) {
    if (std::abs(got[i] - want[i]) <= kTolerance + kTolerance * std::abs(want[i])) continue;
    if (got[i] == want[i] || (std::isnan(got[i]) && std::isnan(want[i]))) continue;
    verdict.status = Status::kFailed;
    verdict.first_bad = last;
    verdict.detail = "element " + std::to_string(i) + " beyond 1e-2";
    return verdict;
  }
  return verdict;
}

/// Clears the stack below the caller, deeper than what it will call, so that an outcome does not
/// depend on what ran before.
[[gnu::noinline]] void clear_stack() {
  std::array<std::byte, std::size_t{256} << 10> below;
  std::memset(below.data(), 0, below.size());
  asm volatile("" : : "r"(below.data()) : "memory");  // else the compiler may leave out the writes
}

constexpr std::array kOracleNames{"all", "no-taps", "final", "tolerance", "pool-guard"};

}  // namespace

Detector detector_of(const Verdict& verdict) {
  const auto bad = [](const StageReport& r) { return r.bad > 0; };
  const auto first = std::ranges::find_if(verdict.stages, bad);
  if (first == verdict.stages.end()) return Detector::kValue;
  const bool guarded = first->stage == Stage::kCacheK || first->stage == Stage::kCacheV;
  if (guarded && std::isinf(first->worst_ratio) && first->worst_where.ends_with("must not write")) {
    return Detector::kGuard;
  }
  if (std::isnan(first->got)) return Detector::kPoison;
  const bool only_lse =
      first->stage == Stage::kLse && std::none_of(first + 1, verdict.stages.end(), bad);
  return only_lse ? Detector::kLse : Detector::kValue;
}

std::string_view name_of(Oracle oracle) {
  return kOracleNames.at(static_cast<std::size_t>(oracle));
}

std::optional<Oracle> find_oracle(std::string_view name) {
  const auto* const found = std::ranges::find(kOracleNames, name);
  if (found == kOracleNames.end()) return std::nullopt;
  return static_cast<Oracle>(found - kOracleNames.begin());
}

FaultCase::FaultCase(const PlannedCase& planned, Oracle oracle)
    : case_(make_case(planned.spec, planned.seed)),
      wanted_(stages_of(case_.config)),
      oracle_(oracle) {
  const std::unique_ptr<Backend> right = FaultyLibrary::instance().make("none");
  arithmetic_ = right->arithmetic(case_.config);
  right_ = right->run(case_, wanted_);
}

std::string FaultCase::false_alarm() const {
  Attempt attempt;
  judge(right_, attempt);
  return attempt.killed ? attempt.detail : "";
}

void FaultCase::judge(const Trace& trace, Attempt& attempt) const {
  CompareOptions options;
  options.check_trust = false;  // a mistrusted case fails nothing
  Verdict verdict;
  switch (oracle_) {
    case Oracle::kAll:
      verdict = compare(case_, trace, arithmetic_, options);
      break;
    case Oracle::kNoTaps:
      options.taps = false;
      verdict = compare(case_, trace, arithmetic_, options);
      break;
    case Oracle::kFinal:
      options.taps = false;
      verdict = compare(case_, final_only(case_.config, trace), arithmetic_, options);
      break;
    case Oracle::kTolerance:
      verdict = within_tolerance(trace, right_, last_stage(case_.config));
      break;
    case Oracle::kPoolGuard: {
      Trace pool;
      pool.cache = trace.cache;
      verdict = compare(case_, pool, arithmetic_, options);
      if (verdict.stages.empty()) verdict = {};  // the pool is no stage
      break;
    }
  }
  if (verdict.status != Status::kFailed) return;
  attempt.killed = true;
  attempt.detector = detector_of(attempt.mode, verdict);
  attempt.stage = verdict.first_bad;
  attempt.detail = verdict.detail;
}

Attempt FaultCase::run(const FaultInfo& fault, ExecMode mode, const Case* other) const {
  Attempt attempt;
  attempt.mode = mode;
  const Clock::time_point start = Clock::now();
  const FaultyLibrary& library = FaultyLibrary::instance();
  const std::unique_ptr<Backend> backend = library.make(fault.id);
  clear_stack();
  try {
    const Trace trace = execute(*backend, mode, case_, other, wanted_);
    attempt.reached = library.reached_by_last_run() > 0;
    attempt.infected = attempt.reached && !same_bits(trace, right_);
    if (attempt.infected) judge(trace, attempt);
  } catch (const std::exception& error) {  // a repeated run that differs, or a bug that throws
    attempt.reached = attempt.infected = attempt.killed = true;
    attempt.detail = error.what();
    attempt.detector = detector_of(mode, {});
  }
  attempt.seconds = seconds_since(start);
  return attempt;
}

}  // namespace attn::harness
