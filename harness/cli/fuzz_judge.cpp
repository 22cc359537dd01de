#include "harness/cli/fuzz_judge.h"

#include <exception>
#include <functional>
#include <optional>
#include <utility>

#include "harness/backends/execution.h"
#include "harness/backends/python_backend.h"
#include "harness/cli/judge.h"
#include "harness/fuzz/alike.h"
#include "harness/fuzz/fit.h"
#include "harness/fuzz/localise.h"

namespace attn::cli {

using harness::ExecMode;
using harness::FuzzCase;
using harness::ReportRow;
using harness::Status;

bool has_failed(const ReportRow& row) {
  if (row.trouble != harness::Trouble::kNone) return true;
  const Status status = row.verdict.status;
  return status == Status::kFailed || status == Status::kCrashed || status == Status::kTimedOut;
}

bool fails_alike(const ReportRow& a, const ReportRow& b) {
  return a.trouble == b.trouble && harness::fails_alike(a.verdict, b.verdict);
}

namespace {

bool is_unsupported(const FuzzResult& result) {
  return result.row.trouble == harness::Trouble::kNone &&
         result.row.verdict.status == Status::kUnsupported;
}

}  // namespace

FuzzJudge::FuzzJudge(const FuzzOptions& options, const harness::Backend& backend)
    : options_(options),
      backend_(backend),
      modes_(options.exec.empty() ? std::vector{ExecMode::kPlain}
                                  : harness::parse_exec_modes(options.exec)),
      deals_(options.exec.empty() && backend.has_device_modes()) {
  compare_options_.taps = options.taps;
}

std::unique_ptr<harness::Backend> FuzzJudge::fresh_backend() const {
  // An interpreter takes seconds to start and holds what was compiled: it is kept until it dies.
  if (harness::is_python_spec(options_.backend)) return harness::share_backend(backend_);
  return open_backend(options_.backend, options_.isolation);
}

Sample FuzzJudge::make(ExecMode mode, const harness::CaseSpec& spec, std::uint64_t seed) {
  Sample sample;
  sample.c = harness::make_case(spec, seed);
  if (needs_other_case(mode)) {
    const harness::OtherCase other = harness::other_case(spec, seed);
    sample.other = harness::make_case(other.spec, other.seed);
  }
  return sample;
}

Sample FuzzJudge::run(ExecMode mode, const harness::CaseSpec& spec, std::uint64_t seed,
                      const harness::Backend& backend) {
  Sample sample = make(mode, spec, seed);
  sample.verdict = run_backend(sample.c, backend, sample.got, mode, sample.other_case());
  return sample;
}

Sample FuzzJudge::run_alone(ExecMode mode, const harness::CaseSpec& spec,
                            std::uint64_t seed) const {
  return run(mode, spec, seed, *fresh_backend());
}

harness::FinalAnswer FuzzJudge::final_answer(const Case& c) const {
  const auto backend = fresh_backend();
  harness::FinalAnswer answer;
  Trace got;
  if (run_backend(c, *backend, got).status != Status::kPassed) return answer;
  answer.got = harness::final_answer(c, std::move(got));
  answer.arithmetic = backend->arithmetic(c.config);
  harness::CompareOptions options;
  options.taps = false;
  options.check_trust = false;
  answer.bad = judge_trace(c, *backend, answer.got, options, nullptr).first_bad;
  answer.ran = true;
  return answer;
}

FuzzResult FuzzJudge::judge_in(const std::vector<ExecMode>& modes, const FuzzCase& tried,
                               bool alone) const {
  FuzzResult result{tried, modes.front(), {}, false, alone, false};
  ReportRow& row = result.row;
  row.backend = options_.backend;
  row.name = "seed-" + std::to_string(tried.seed);
  std::optional<Trace> judged;  // equal bits have an equal verdict
  guarded(row, [&] {
    for (const ExecMode mode : modes) {
      result.exec = mode;
      // What a second call finds must come from the first, not from earlier cases.
      const bool fresh = alone || needs_other_case(mode);
      const auto own = fresh ? fresh_backend() : nullptr;
      Sample sample = run(mode, tried.spec, tried.seed, fresh ? *own : backend_);
      row.repro =
          "attn-compare run " + sample.c.repro + " --backend " + shell_quote(options_.backend);
      if (mode != ExecMode::kPlain) row.repro += " --exec " + std::string(name_of(mode));
      if (!options_.taps) row.repro += " --no-taps";
      row.repro += repro_words(options_.isolation);
      if (sample.verdict.status != Status::kPassed) {
        row.verdict = std::move(sample.verdict);
        return;
      }
      if (judged && harness::first_difference(*judged, sample.got).empty()) continue;
      row.verdict = judge_trace(sample.c, backend_, sample.got, compare_options_, nullptr);
      if (row.verdict.status != Status::kPassed) return;
      judged = std::move(sample.got);
    }
  });
  row.properties.emplace_back("origin", std::string(name_of(tried.origin)));
  row.properties.emplace_back("exec", std::string(name_of(result.exec)));
  return result;
}

FuzzResult FuzzJudge::judge_alone(ExecMode mode, const FuzzCase& tried) const {
  return judge_in({mode}, tried, true);
}

FuzzResult FuzzJudge::fit(const std::vector<ExecMode>& modes, const FuzzCase& tried,
                          FuzzResult refused) const {
  std::optional<harness::CaseSpec> spec;
  try {
    spec = harness::fitted(tried.spec, [&](const AttentionConfig& config) {
      return backend_.unsupported_reason(config).empty();
    });
  } catch (const std::exception&) {  // it broke where it was asked
    return refused;
  }
  if (!spec) return refused;
  FuzzCase next = tried;
  next.spec = *spec;
  // What only a run is asked of: how tensors lie in memory, and sinks.
  const auto plain_layout = [](harness::CaseSpec& s) { s.layout = MemoryLayout(); };
  const auto no_sinks = [](harness::CaseSpec& s) { s.sinks = false; };
  for (const auto& change : {std::function<void(harness::CaseSpec&)>([](auto&) {}),
                             std::function<void(harness::CaseSpec&)>(plain_layout),
                             std::function<void(harness::CaseSpec&)>(no_sinks)}) {
    const harness::CaseSpec before = next.spec;
    change(next.spec);
    if (next.spec == before && before != *spec) continue;
    FuzzResult result = judge_in(modes, next, false);
    if (is_unsupported(result)) continue;
    result.fitted = true;
    return result;
  }
  return refused;
}

FuzzResult FuzzJudge::judge(const FuzzCase& tried) const {
  std::vector<ExecMode> modes = modes_;
  if (deals_) modes = {harness::dealt_mode(tried.seed)};
  if (tried.exec) modes = {*tried.exec};
  FuzzResult result = judge_in(modes, tried, false);
  const bool of_device = result.exec == ExecMode::kGraph || result.exec == ExecMode::kGraphReplay ||
                         result.exec == ExecMode::kPadded;
  if (is_unsupported(result) && !of_device) result = fit(modes, tried, std::move(result));
  const auto mistrusted = [&] {
    return result.row.trouble == harness::Trouble::kNone &&
           result.row.verdict.status == Status::kMistrusted;
  };
  if (!mistrusted()) return result;
  const bool is_fitted = result.fitted;
  const harness::CaseSpec spec = result.tried.spec;
  FuzzCase neighbour = result.tried;
  for (const bool other_data : {false, true}) {
    if (other_data) neighbour.spec = harness::trusted_neighbour(spec);
    ++neighbour.seed;
    result = judge_in(modes, neighbour, false);
    result.replaced = true;
    result.fitted = is_fitted;
    if (!mistrusted()) break;
  }
  return result;
}

}  // namespace attn::cli
