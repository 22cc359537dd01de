#include "harness/cli/fuzz_failures.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <list>
#include <optional>
#include <ostream>
#include <sstream>
#include <utility>

#include "harness/fuzz/corpus.h"
#include "harness/fuzz/localise.h"
#include "harness/generate/shrink.h"
#include "harness/report/format.h"

namespace attn::cli {
namespace {

using harness::ReportRow;
using harness::Status;

/// Whether `features` has all kinds of features ("page_size" of "page_size: 16") that `needed` has.
bool has_kinds(const std::vector<std::string>& features, const std::vector<std::string>& needed) {
  const auto kind = [](const std::string& feature) { return feature.substr(0, feature.find(':')); };
  return std::ranges::all_of(needed, [&](const std::string& wanted) {
    return std::ranges::any_of(
        features, [&](const std::string& feature) { return kind(feature) == kind(wanted); });
  });
}

std::string counted(std::int64_t n, const std::string& noun) {
  return harness::format_count(n) + " " + noun + (n == 1 ? "" : "s");
}

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : "; ") + word;
  return text;
}

/// "3.2x the bound"; of an error that no bound measures the values.
std::string error_words(const harness::StageReport& stage) {
  if (std::isfinite(stage.worst_ratio)) {
    return harness::format_ratio(stage.worst_ratio) + "x the bound";
  }
  std::ostringstream words;
  words << "got " << stage.got << " for " << stage.want;
  return words.str();
}

/// What the case asks of the backend.
std::string task_name(const harness::CaseSpec& spec) {
  return spec.config.entry_point == EntryPoint::kMaterializeKvFromHidden
             ? "materialize"
             : std::string(name_of(spec.config.entry_point));
}

/// Whether there is an answer that can be compared with others.
bool has_answer(const ReportRow& row) {
  return row.trouble == harness::Trouble::kNone && row.verdict.status == Status::kFailed &&
         row.verdict.first_bad.has_value();
}

/// The stages up to the first bad one that the backend does not show and that none that is right
/// depends on. The table of the rope is an input.
std::vector<Stage> hidden_stages(const AttentionConfig& config, const harness::Verdict& verdict,
                                 bool taps) {
  const auto is_right = [&](Stage stage) {
    return taps && std::ranges::any_of(verdict.stages, [stage](const harness::StageReport& report) {
             return report.stage == stage && report.bad == 0;
           });
  };
  const auto is_settled = [&](Stage stage) {
    switch (stage) {
      case Stage::kFreqsCis:
        return true;
      case Stage::kQProj:
        return is_right(Stage::kQNorm) || is_right(Stage::kQRope);
      case Stage::kQNorm:
        return is_right(Stage::kQRope);
      case Stage::kKProj:
        return is_right(Stage::kKNorm) || is_right(Stage::kKRope) || is_right(Stage::kCacheK);
      case Stage::kKNorm:
        return is_right(Stage::kKRope) || is_right(Stage::kCacheK);
      case Stage::kKRope:
        return is_right(Stage::kCacheK);
      case Stage::kVProj:
        return is_right(Stage::kCacheV);
      case Stage::kCacheK:
        return is_right(Stage::kLse);
      default:
        return false;
    }
  };
  std::vector<Stage> hidden;
  for (const Stage stage : stages_of(config)) {
    if (stage >= verdict.first_bad) break;
    const bool settled = is_right(stage) || is_settled(stage) || is_right(Stage::kAttnOut);
    if (!settled) hidden.push_back(stage);
  }
  return hidden;
}

/// Answers of a backend, as the dictionary wants them.
class EvidenceList {
 public:
  explicit EvidenceList(const FuzzJudge& judge) : judge_(judge) {}

  void add(harness::ExecMode mode, const harness::CaseSpec& spec, std::uint64_t seed) {
    Sample sample = judge_.run_alone(mode, spec, seed);
    if (sample.verdict.status != Status::kPassed) return;
    const Sample& kept = samples_.emplace_back(std::move(sample));
    list_.push_back(
        {kept.c, kept.got, judge_.backend().arithmetic(spec.config), mode, kept.other_case()});
  }
  std::span<const harness::Evidence> list() const { return list_; }

 private:
  const FuzzJudge& judge_;
  std::list<Sample> samples_;  // addresses stay
  std::vector<harness::Evidence> list_;
};

}  // namespace

/// The failure as it shows on its own: in the mode that failed, else after one other case. As it
/// was where it depends on more of what ran before.
FuzzResult FuzzFailures::confirm(const FuzzResult& failure) const {
  for (const harness::ExecMode mode : {failure.exec, harness::ExecMode::kSecondCall}) {
    FuzzResult alone = judge_.judge_alone(mode, failure.tried);
    if (has_failed(alone.row)) return alone;
  }
  return failure;
}

/// The smallest case that fails as `failure` does.
FuzzResult FuzzFailures::shrink(const FuzzResult& failure) const {
  constexpr double kSeconds = 30.0;
  FuzzResult smallest = failure;
  harness::shrink(
      failure.tried.spec, failure.tried.seed,
      [&](const harness::CaseSpec& spec, std::uint64_t seed) {
        FuzzResult tried =
            judge_.judge_alone(failure.exec, {spec, seed, failure.tried.origin, failure.exec});
        if (!fails_alike(tried.row, failure.row)) return false;
        smallest = std::move(tried);
        return true;
      },
      kSeconds);
  return smallest;
}

std::vector<harness::Likeness> FuzzFailures::look_up(const FuzzResult& first,
                                                     const FuzzResult& smallest) const {
  const harness::FaultDictionary* const dictionary = harness::FaultDictionary::instance();
  if (dictionary == nullptr || !has_answer(first.row)) return {};
  EvidenceList evidence(judge_);
  evidence.add(first.exec, smallest.tried.spec, smallest.tried.seed);
  // Where the small case cannot tell two mistakes apart, the larger one may.
  evidence.add(first.exec, first.tried.spec, first.tried.seed);
  std::vector<harness::Likeness> found = dictionary->look_up(evidence.list());
  // Then cases that are known to tell apart what is left.
  constexpr std::int64_t kMost = 60;
  for (std::int64_t n = 0; n < kMost && found.size() > 1; ++n) {
    const harness::PlannedCase planned = harness::random_case({}, n);
    const harness::FuzzCase next{planned.spec, planned.seed, {}, first.exec};
    const Sample sample = judge_.make(first.exec, next.spec, next.seed);
    if (!dictionary->tells_apart(found[0], found[1], sample.c, first.exec, sample.other_case())) {
      continue;
    }
    evidence.add(first.exec, next.spec, next.seed);
    found = dictionary->look_up(evidence.list());
  }
  return found;
}

bool FuzzFailures::belongs(const FuzzResult& failure, const std::vector<std::string>& features,
                           const FailureGroup& group) const {
  if (failure.exec != group.first.exec) return false;
  if (fails_alike(failure.row, group.first.row) && has_kinds(features, group.features)) return true;
  if (group.likeness.empty() || !has_answer(failure.row)) return false;
  EvidenceList evidence(judge_);
  evidence.add(failure.exec, failure.tried.spec, failure.tried.seed);
  const auto distance = harness::FaultDictionary::instance()->distance(
      group.likeness.front().fault->id, evidence.list());
  return distance && *distance <= 1.0;
}

void FuzzFailures::add(const FuzzResult& seen) {
  const FuzzResult failure = confirm(seen);
  const std::vector<std::string> features = non_default_features(failure.tried.spec);
  for (FailureGroup& group : groups_) {
    if (!belongs(failure, features, group)) continue;
    ++group.count;
    return;
  }
  FailureGroup group{failure, options_.shrink ? shrink(failure) : failure, {}, {}, {}, 1};
  // The same small case under another first stage: one account is enough.
  for (FailureGroup& known : groups_) {
    if (known.smallest.tried.spec != group.smallest.tried.spec) continue;
    if (known.first.exec != failure.exec || !fails_alike(group.smallest.row, known.smallest.row)) {
      continue;
    }
    ++known.count;
    return;
  }
  group.features = non_default_features(group.smallest.tried.spec);
  group.likeness = look_up(failure, group.smallest);
  group.inside = look_inside(group);
  if (!options_.corpus.empty()) {
    const auto& bad = group.smallest.row.verdict.first_bad;
    harness::add_to_corpus(options_.corpus,
                           {group.smallest.tried.spec, group.smallest.tried.seed, failure.exec,
                            options_.backend, bad ? std::string(name_of(*bad)) : ""});
  }
  groups_.push_back(std::move(group));
}

/// Nothing where the backend shows every stage that may be the first bad one.
std::optional<FailureGroup::Inside> FuzzFailures::look_inside(const FailureGroup& group) const {
  const ReportRow& row = group.smallest.row;
  if (!has_answer(row)) return std::nullopt;
  const harness::FuzzCase &small = group.smallest.tried, &first = group.first.tried;
  const std::vector<Stage> hidden = hidden_stages(small.spec.config, row.verdict, options_.taps);
  if (hidden.empty()) return std::nullopt;
  const auto is_possible = [&](Stage stage) {
    return stage == row.verdict.first_bad || std::ranges::find(hidden, stage) != hidden.end();
  };
  const std::array failing = {harness::FailingCase{small.spec, small.seed},
                              harness::FailingCase{first.spec, first.seed}};
  const harness::Localised found =
      harness::localise(failing, [&](const Case& c) { return judge_.final_answer(c); });
  const std::string stage(name_of(found.stage));
  const std::string sure = found.sure ? "" : ", not surely";
  const bool known = !group.likeness.empty() && is_possible(group.likeness.front().fault->stage);
  if (!known) {
    if (!is_possible(found.stage)) return std::nullopt;
    return FailureGroup::Inside{found.stage,
                                stage + " by construction" + sure + ": " + found.because};
  }
  const Stage like = group.likeness.front().fault->stage;
  std::string how(name_of(like));
  how += " by likeness";
  if (like == found.stage) {
    how += " and by construction" + sure + ": " + found.because;
  } else if (is_possible(found.stage)) {
    how += "; " + stage + " by construction" + sure + ": " + found.because;
  }
  return FailureGroup::Inside{like, how};
}

void FuzzFailures::print(std::ostream& out, const FailureGroup& group) const {
  const ReportRow& row = group.smallest.row;
  const harness::CaseSpec& spec = group.smallest.tried.spec;
  std::string line = "fails: " + options_.backend + " " + task_name(spec);
  const harness::StageReport* const stage = headline_stage(row.verdict);
  if (has_answer(row) && stage != nullptr) {
    line += ", stage " + std::string(name_of(stage->stage)) + ", " + error_words(*stage) + ", " +
            stage->worst_where;
    if (!stage->note.empty()) line += " (" + stage->note + ")";
  } else {
    line += ": " + row.verdict.detail;
  }
  if (group.first.exec != harness::ExecMode::kPlain) {
    line += "; only with --exec " + std::string(name_of(group.first.exec));
  }
  if (group.inside) {
    line += "; first bad stage inside: " + std::string(name_of(group.inside->stage));
  }
  if (options_.shrink) line += "; shrunk to " + harness::headline_sizes(spec);
  if (!group.likeness.empty()) line += "; looks like: " + harness::to_string(group.likeness);
  out << "\n" << harness::wrap(line, 2) << "\n";
  if (group.inside) out << harness::wrap("  inside     " + group.inside->how, 13) << "\n";
  std::vector<std::string> features = group.features;
  if (group.first.exec != harness::ExecMode::kPlain) {
    features.push_back("exec: " + std::string(name_of(group.first.exec)));
  }
  const std::string needs = features.empty() ? "no feature, only sizes" : joined(features);
  out << harness::wrap("  needs      " + needs, 13) << "\n";
  out << harness::wrap("  sizes      " + joined(harness::all_sizes(spec)), 13) << "\n";
  if (group.count > 1) out << "  seen in    " << counted(group.count, "case") << "\n";
  if (!group.first.alone) {
    out << "  note       it did not fail on its own, so cases that ran before it matter\n";
  }
  out << "  reproduce  " << row.repro << "\n";
}

void FuzzFailures::print(std::ostream& out) const {
  for (const FailureGroup& group : groups_) print(out, group);
}

}  // namespace attn::cli
