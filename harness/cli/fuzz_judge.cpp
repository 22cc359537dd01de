#include "harness/cli/fuzz_judge.h"

#include <algorithm>
#include <exception>
#include <optional>
#include <utility>
#include <vector>

#include "harness/backends/execution.h"
#include "harness/backends/layout_taker.h"
#include "harness/backends/python_backend.h"
#include "harness/cli/judge.h"
#include "harness/cli/relation_rows.h"
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
  if (harness::is_waived(row)) return false;
  const Status status = row.verdict.status;
  return status == Status::kFailed || status == Status::kCrashed || status == Status::kTimedOut;
}

bool fails_alike(const FuzzResult& a, const FuzzResult& b) {
  return has_failed(a.row) && has_failed(b.row) && a.relation == b.relation &&
         a.row.trouble == b.row.trouble && harness::fails_alike(a.row.verdict, b.row.verdict);
}

namespace {

bool is_unsupported(const FuzzResult& result) {
  return result.row.trouble == harness::Trouble::kNone &&
         result.row.verdict.status == Status::kUnsupported;
}

/// The way of calling is refused, so that no other case would be taken.
bool is_refused_mode(const FuzzResult& result) {
  return is_unsupported(result) && result.row.verdict.detail.starts_with("mode ");
}

}  // namespace

FuzzJudge::FuzzJudge(const FuzzOptions& options, const harness::Backend& backend)
    : options_(options),
      backend_(backend),
      modes_(options.exec.empty() ? std::vector{ExecMode::kPlain}
                                  : harness::parse_exec_modes(options.exec)),
      deals_(options.exec.empty() && backend.has_device_modes()) {
  compare_options_.taps = options.taps;
  if (options.relations != "none") relations_ = chosen_relations(options.relations);
  if (!options.waivers.empty()) waivers_ = harness::Waivers::load(options.waivers);
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
    const harness::OtherCase other =
        harness::other_case(spec, seed, mode == ExecMode::kGraphReplay);
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
  FuzzResult result{tried, modes.front(), {}, {}, alone, {}, {}};
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
      waivers_.apply(sample.c, row);
      if (sample.verdict.status != Status::kPassed) {
        row.verdict = std::move(sample.verdict);
        return;
      }
      if (judged && harness::first_difference(*judged, sample.got).empty()) continue;
      row.verdict = judge_trace(sample.c, backend_, sample.got, compare_options_, nullptr);
      if (row.verdict.status != Status::kPassed) return;
      judged = std::move(sample.got);
      result.degenerate = harness::degeneracy(tried.spec, sample.c);
    }
  });
  row.properties.emplace_back("origin", std::string(name_of(tried.origin)));
  row.properties.emplace_back("exec", std::string(name_of(result.exec)));
  if (row.trouble == harness::Trouble::kNone && row.verdict.status != Status::kUnsupported) {
    result.points.push_back(harness::point_of(tried.spec));
  }
  return result;
}

/// The case without what the backend does not support. Where the runs of all its forms are refused,
/// the refusal that most of them met: `refused` may only say what was taken away first.
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
  std::vector<harness::CaseSpec> specs = harness::plainer_for_a_run(*spec);
  std::vector<FuzzResult> refusals;  // of runs
  if (*spec != tried.spec) {
    specs.insert(specs.begin(), *spec);
  } else {
    refusals.push_back(refused);
  }
  for (harness::CaseSpec& fit : specs) {
    FuzzCase next = tried;
    next.spec = std::move(fit);
    FuzzResult result = judge_in(modes, next, false);
    if (is_refused_mode(result)) return result;
    if (is_unsupported(result)) {
      refusals.push_back(std::move(result));
      continue;
    }
    result.row.properties.emplace_back("fitted", std::string("yes"));
    return result;
  }
  const auto reason = [](const FuzzResult& result) { return result.row.verdict.detail; };
  return *std::ranges::max_element(refusals, {}, [&](const FuzzResult& result) {
    return std::ranges::count(refusals, reason(result), reason);
  });
}

/// A case that could not have shown a bug, as one with a neighbour that can: mistrusted until the
/// neighbour is judged, then passed when both do. Other values of the same config come first where
/// only the values are at fault.
FuzzResult FuzzJudge::judge_pair(const std::vector<ExecMode>& modes,
                                 const FuzzCase& planned) const {
  FuzzResult result = judge_in(modes, planned, false);
  if (is_unsupported(result) && !is_refused_mode(result))
    result = fit(modes, planned, std::move(result));
  const FuzzCase tried = result.tried;
  harness::Verdict& verdict = result.row.verdict;
  const auto is_alone = [](const FuzzResult& r) {
    return r.row.trouble == harness::Trouble::kNone &&
           (r.row.verdict.status == Status::kMistrusted ||
            (r.row.verdict.status == Status::kPassed && !r.degenerate.empty()));
  };
  if (!is_alone(result)) return result;
  const std::string reason =
      verdict.status == Status::kMistrusted ? "mistrusted: " + verdict.detail : result.degenerate;
  verdict.status = Status::kMistrusted;
  verdict.detail = reason;
  FuzzCase other = tried;
  for (const bool same_spec : {result.degenerate.empty(), false}) {
    if (!same_spec) other.spec = harness::trusted_neighbour(tried.spec);
    ++other.seed;
    FuzzResult neighbour = judge_in(modes, other, false);
    if (is_unsupported(neighbour)) neighbour = fit(modes, other, std::move(neighbour));
    result.row.seconds += neighbour.row.seconds;
    if (is_alone(neighbour)) continue;
    result.points.insert(result.points.end(), neighbour.points.begin(), neighbour.points.end());
    if (neighbour.row.trouble == harness::Trouble::kNone &&
        neighbour.row.verdict.status == Status::kUnsupported) {
      verdict.detail += "; its neighbour is unsupported: " + neighbour.row.verdict.detail;
      break;
    }
    const bool passed = neighbour.row.trouble == harness::Trouble::kNone &&
                        neighbour.row.verdict.status == Status::kPassed;
    ReportRow& row = passed ? result.row : neighbour.row;
    row.properties.emplace_back("pair", reason);
    row.properties.emplace_back("neighbour", (passed ? neighbour : result).row.repro);
    if (passed) {
      verdict.status = Status::kPassed;
      verdict.detail.clear();
      return result;
    }
    neighbour.points = std::move(result.points);
    row.seconds = result.row.seconds;
    return neighbour;
  }
  return result;
}

/// A quarter of the cases, by their seeds; all where relations were named.
bool FuzzJudge::wants_relations(const FuzzCase& tried) const {
  constexpr std::uint64_t kShare = 4;
  if (!tried.relation.empty()) return true;
  return !relations_.empty() && (!options_.relations.empty() || tried.seed % kShare == 0);
}

/// Puts the case of `result` through all relations that are about it, or `only` one; the first that
/// is broken becomes the row's failure.
void FuzzJudge::check_relations(const harness::Backend& backend, const std::string& only,
                                FuzzResult& result) const {
  ReportRow& row = result.row;
  const double seconds = row.seconds;
  std::int64_t checked = 0;
  guarded(row, [&] {
    const Case c = harness::make_case(result.tried.spec, result.tried.seed);
    row.verdict.detail = backend.unsupported_reason(c.config);
    if (!row.verdict.detail.empty()) {
      row.verdict.status = Status::kUnsupported;
      return;
    }
    const harness::Subject subject(c, backend);
    const std::vector<harness::Relation> named =
        only.empty() ? relations_ : std::vector{harness::find_relation(only)};
    for (const harness::Relation& relation : named) {
      if (!relation.applies(c)) continue;
      const harness::RelationResult found = relation.check(subject);
      checked += found.skipped.empty() ? 1 : 0;
      if (!found.broken) continue;
      result.relation = relation.name;
      set_broken(row, *found.broken, found.worst_ratio);
      row.repro = relation_repro(c.repro, options_.backend, relation.name) +
                  repro_words(options_.isolation);
      waivers_.apply(c, row);
      break;
    }
  });
  row.seconds += seconds;
  row.properties.emplace_back("relations", checked);
  if (!result.relation.empty()) row.properties.emplace_back("relation", result.relation);
}

FuzzResult FuzzJudge::judge_alone(ExecMode mode, const std::string& relation,
                                  const FuzzCase& tried) const {
  if (relation.empty()) return judge_in({mode}, tried, true);
  FuzzResult result{tried, mode, {}, {}, true, {}, {}};
  result.row.backend = options_.backend;
  result.row.name = "seed-" + std::to_string(tried.seed);
  check_relations(*fresh_backend(), relation, result);
  return result;
}

/// A planned case in the layout that the backend takes; a past failure stays what it was.
FuzzCase FuzzJudge::as_taken(FuzzCase tried) const {
  if (tried.origin == harness::CaseOrigin::kCorpus) return tried;
  try {
    tried.spec.layout = harness::taken_layout(backend_, tried.spec.config, tried.spec.layout);
  } catch (const std::exception&) {
    // The run of the case says what is wrong with the backend.
  }
  return tried;
}

FuzzResult FuzzJudge::judge(const FuzzCase& planned) const {
  const FuzzCase tried = as_taken(planned);
  std::vector<ExecMode> modes = modes_;
  if (deals_) modes = {harness::dealt_mode(tried.seed)};
  if (tried.exec) modes = {*tried.exec};
  FuzzResult result = judge_pair(modes, tried);
  const bool passed =
      result.row.trouble == harness::Trouble::kNone && result.row.verdict.status == Status::kPassed;
  if (passed && wants_relations(tried)) check_relations(backend_, tried.relation, result);
  return result;
}

}  // namespace attn::cli
