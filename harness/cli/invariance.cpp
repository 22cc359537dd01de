#include <algorithm>
#include <iomanip>
#include <memory>
#include <ostream>

#include "harness/backends/backend.h"
#include "harness/backends/layout_taker.h"
#include "harness/cli/interrupt.h"
#include "harness/cli/jobs.h"
#include "harness/cli/judge.h"
#include "harness/cli/ordered_pool.h"
#include "harness/cli/relation_rows.h"
#include "harness/cli/verbs.h"
#include "harness/generate/space.h"
#include "harness/relations/relations.h"
#include "harness/report/format.h"
#include "reference/core/error.h"

namespace attn::cli {
namespace {

using harness::Broken;
using harness::Relation;
using harness::RelationResult;
using harness::ReportRow;
using harness::Status;

/// A case to try: one that was named, or one that is made when it is its turn.
struct Candidate {
  harness::CaseSpec spec;
  std::uint64_t seed = 0;
};

/// What the relations said of one case, in their order; none where one does not apply.
struct CaseResult {
  std::string id;
  std::string words;  ///< that name the case again
  std::string unsupported;
  std::vector<std::optional<RelationResult>> results;
  ReportRow row;  ///< what the backend broke on, if it did
};

/// One relation over all cases.
struct Score {
  std::int64_t checked = 0;
  std::int64_t skipped = 0;
  double worst_ratio = 0.0;
  std::string why_skipped;
  std::optional<Broken> broken;
  std::string words;  ///< of the case that broke it
};

class Invariance {
 public:
  Invariance(const InvarianceOptions& options, const Session& session)
      : options_(options),
        session_(session),
        reporter_(session, options.report, "invariance"),
        backend_(open_backend(options.backend, options.isolation)),
        relations_(chosen_relations(options.relations)),
        scores_(relations_.size()) {
    plan_cases();
  }

  int execute(int jobs);

 private:
  void plan_cases();
  CaseResult check(std::size_t index) const;
  CaseResult check_case(const Case& c, const std::string& words) const;
  void take(CaseResult result);
  void print_title() const;
  void print_table() const;
  void print_broken(std::size_t relation) const;
  void add_rows();
  std::string repro(std::size_t relation) const;

  const InvarianceOptions& options_;
  const Session& session_;
  Reporter reporter_;
  std::unique_ptr<harness::Backend> backend_;
  std::vector<Relation> relations_;
  std::vector<Score> scores_;
  std::optional<LoadedCase> named_;
  std::vector<Candidate> candidates_;
  std::int64_t unsupported_ = 0;
  std::string why_unsupported_;
  std::optional<std::size_t> first_broken_;
};

void Invariance::plan_cases() {
  const bool named = !options_.source.file.empty() || !options_.source.config.empty();
  if (named && (options_.cases || !options_.gate.empty())) {
    throw Error(ErrorKind::kUsage,
                "--case and --config name one case; --cases and --gate draw many: leave one out",
                "--cases");
  }
  if (named) {
    named_ = load_case(options_.source);
    return;
  }
  harness::GatePlan plan;
  plan.seed = options_.source.seed.value_or(1);
  if (!options_.gate.empty()) {
    plan.gate = parse_gate(options_.gate);
    for (harness::PlannedCase& planned : harness::covering_cases(plan)) {
      candidates_.push_back({std::move(planned.spec), planned.seed});
    }
  }
  constexpr std::int64_t kDefaultCases = 100;
  const std::int64_t random = options_.cases.value_or(options_.gate.empty() ? kDefaultCases : 0);
  for (std::int64_t n = 0; n < random; ++n) {
    harness::PlannedCase planned = harness::random_case(plan, n);
    candidates_.push_back({std::move(planned.spec), planned.seed});
  }
}

CaseResult Invariance::check_case(const Case& c, const std::string& words) const {
  CaseResult result;
  result.id = c.id;
  result.words = words;
  result.results.resize(relations_.size());
  result.unsupported = backend_->unsupported_reason(c.config);
  if (!result.unsupported.empty()) return result;
  harness::RelationOptions relation_options;
  relation_options.bitwise = options_.bitwise;
  const harness::Subject subject(c, *backend_, relation_options);
  for (std::size_t i = 0; i < relations_.size(); ++i) {
    if (relations_[i].applies(c)) result.results[i] = relations_[i].check(subject);
  }
  return result;
}

CaseResult Invariance::check(std::size_t index) const {
  CaseResult result;
  ReportRow row;
  row.backend = options_.backend;
  guarded(row, [&] {
    if (named_) {
      row.name = named_->c.id;
      row.file = named_->file;
      row.repro = "attn-compare run " + named_->words;
      result = check_case(named_->c, named_->words);
      return;
    }
    Candidate candidate = candidates_[index];
    candidate.spec.layout =
        harness::taken_layout(*backend_, candidate.spec.config, candidate.spec.layout);
    const Case c = harness::make_case(candidate.spec, candidate.seed);
    row.name = c.id;
    row.repro = "attn-compare run " + c.repro;
    result = check_case(c, c.repro);
  });
  row.repro += " --backend " + shell_quote(options_.backend) + repro_words(options_.isolation);
  result.row = std::move(row);
  return result;
}

bool went_wrong(const ReportRow& row) {
  return row.trouble != harness::Trouble::kNone || row.verdict.status != Status::kPassed;
}

void Invariance::take(CaseResult result) {
  if (result.row.verdict.status == Status::kUnsupported) {
    result.unsupported = result.row.verdict.detail;
  } else if (went_wrong(result.row)) {
    reporter_.report().rows.push_back(std::move(result.row));
    return;
  }
  if (!result.unsupported.empty()) {
    ++unsupported_;
    why_unsupported_ = std::move(result.unsupported);
    return;
  }
  for (std::size_t i = 0; i < relations_.size(); ++i) {
    if (!result.results[i]) continue;
    RelationResult& one = *result.results[i];
    Score& score = scores_[i];
    if (!one.skipped.empty()) {
      ++score.skipped;
      score.why_skipped = std::move(one.skipped);
      continue;
    }
    ++score.checked;
    score.worst_ratio = std::max(score.worst_ratio, one.worst_ratio);
    if (!one.broken || score.broken) continue;
    score.broken = std::move(one.broken);
    score.words = result.words;
    if (!first_broken_) first_broken_ = i;
  }
}

std::string Invariance::repro(std::size_t relation) const {
  return relation_repro(scores_[relation].words, options_.backend, relations_[relation].name) +
         (options_.bitwise ? " --bitwise" : "") + repro_words(options_.isolation);
}

void Invariance::print_title() const {
  const auto cases = static_cast<std::int64_t>(named_ ? 1 : candidates_.size());
  reporter_.text() << harness::format_count(cases) << (cases == 1 ? " case" : " cases") << " on "
                   << options_.backend << ": two answers of one backend, each within its bound"
                   << (options_.bitwise ? "; bit for bit where that may be asked" : "") << "\n\n";
}

void Invariance::print_table() const {
  std::ostream& out = reporter_.text();
  out << std::left << std::setw(20) << "relation" << std::right << std::setw(7) << "cases"
      << std::setw(9) << "skipped" << std::setw(20) << "difference/allowed"
      << "\n";
  for (std::size_t i = 0; i < relations_.size(); ++i) {
    const Score& score = scores_[i];
    out << std::left << std::setw(20) << relations_[i].name << std::right << std::setw(7)
        << harness::format_count(score.checked) << std::setw(9)
        << harness::format_count(score.skipped) << std::setw(20)
        << (score.checked > 0 ? harness::format_ratio(score.worst_ratio) : "")
        << (score.broken ? "  BROKEN" : "") << "\n";
  }
  if (unsupported_ > 0) {
    out << "\n"
        << harness::wrap(harness::format_count(unsupported_) +
                             " cases are unsupported, the last one: " + why_unsupported_,
                         2)
        << "\n";
  }
}

void Invariance::print_broken(std::size_t relation) const {
  const Broken& broken = *scores_[relation].broken;
  std::ostream& out = reporter_.text();
  out << "\nBROKEN  " << relations_[relation].name << ": " << relations_[relation].summary << "\n"
      << harness::wrap("  against          " + broken.detail, 19) << "\n"
      << "  worst element    " << broken.where << "\n"
      << "  the case has     " << harness::format_number(broken.one) << "\n"
      << "  the other has    " << harness::format_number(broken.other) << "\n"
      << "  allowed          "
      << (broken.allowed > 0.0 ? harness::format_short(broken.allowed) : "no difference") << "\n"
      << "  reproduce        " << repro(relation) << "\n";
}

/// One row a relation: what it is about is one property of the backend, whatever the case.
void Invariance::add_rows() {
  for (std::size_t i = 0; i < relations_.size(); ++i) {
    const Score& score = scores_[i];
    ReportRow row;
    row.name = relations_[i].name;
    row.backend = options_.backend;
    row.properties = {
        {"cases", score.checked}, {"skipped", score.skipped}, {"worst_ratio", score.worst_ratio}};
    if (score.broken) {
      set_broken(row, *score.broken, score.worst_ratio);
      row.repro = repro(i);
    } else if (score.checked == 0) {
      row.verdict.status = Status::kSkipped;
      row.verdict.detail =
          score.skipped > 0 ? score.why_skipped : "no case that it is about was tried";
    }
    reporter_.report().rows.push_back(std::move(row));
  }
  const bool nothing_ran =
      std::ranges::all_of(scores_, [](const Score& s) { return s.checked == 0; });
  if (!nothing_ran || unsupported_ == 0) return;
  ReportRow& row = reporter_.report().rows.emplace_back();
  row.name = named_ ? named_->c.id : "every case";
  row.backend = options_.backend;
  row.verdict.status = Status::kUnsupported;
  row.verdict.detail = why_unsupported_;
}

int Invariance::execute(int jobs) {
  const InterruptGuard guard;
  print_title();
  const std::size_t count = named_ ? 1 : candidates_.size();
  Progress progress(session_.streams, static_cast<std::int64_t>(count), "cases");
  run_in_order<CaseResult>(
      count, jobs, [&](std::size_t i) { return check(i); },
      [&](CaseResult result) { take(std::move(result)); },
      [&](std::size_t done) {
        const auto broken =
            std::ranges::count_if(scores_, [](const Score& s) { return s.broken.has_value(); });
        progress.update(static_cast<std::int64_t>(done), broken);
      },
      interrupted);
  progress.clear();
  print_table();
  for (const ReportRow& row : reporter_.report().rows) {
    reporter_.text() << "\n" << harness::failure_block(row);
  }
  if (first_broken_) print_broken(*first_broken_);
  add_rows();
  reporter_.text() << "\n" << to_string(reporter_.report().tally()) << std::endl;
  return reporter_.finish();
}

}  // namespace

int invariance(const InvarianceOptions& options, const Session& session) {
  const int jobs = use_jobs(options.jobs);
  return Invariance(options, session).execute(jobs);
}

}  // namespace attn::cli
