#include "harness/cli/fuzz_failures.h"

#include <algorithm>
#include <array>
#include <list>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "harness/fuzz/localise.h"
#include "harness/generate/shrink.h"

namespace attn::cli {
namespace {

using harness::Status;

/// The stages up to the first bad one that the backend does not show and that none that is right
/// depends on. The table of the rope is an input.
std::vector<Stage> hidden_stages(const AttentionConfig& config, const harness::Verdict& verdict,
                                 bool taps) {
  const auto is_right = [&](Stage stage) {
    if (std::ranges::find(verdict.given, stage) != verdict.given.end()) return true;
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
  void keep(std::size_t first) {
    while (list_.size() > first) list_.pop_back();
  }

 private:
  const FuzzJudge& judge_;
  std::list<Sample> samples_;  // addresses stay
  std::vector<harness::Evidence> list_;
};

/// The same with every sequence as long as its pages.
harness::CaseSpec with_whole_pages(harness::CaseSpec spec) {
  const bool from_attention = spec.config.starts_at_attention();
  const std::int64_t page = spec.config.kv_cache.page_size;
  for (harness::RowSpec& row : spec.rows) {
    const std::int64_t keys = from_attention ? row.second : row.first + row.second;
    (from_attention ? row.second : row.first) += (page - keys % page) % page;
  }
  return spec;
}

/// What is left of mistakes whose likeness is NaN throughout, which many a mistake leaves, by cases
/// on which the first of them leaves numbers: there a backend with that mistake does too.
void settle_nan(const harness::FaultDictionary& dictionary, const FuzzJudge& judge,
                const FuzzResult& smallest, EvidenceList& evidence,
                std::vector<harness::Likeness>& found) {
  constexpr std::int64_t kMost = 60;
  for (std::int64_t n = 0; n < kMost && !found.empty() && found[0].by_nan_alone; ++n) {
    harness::CaseSpec spec = with_whole_pages(smallest.tried.spec);
    std::uint64_t seed = smallest.tried.seed;
    if (n > 0) {
      const harness::PlannedCase planned = harness::random_case({}, n);
      spec = planned.spec;
      seed = planned.seed;
    }
    const Sample sample = judge.make(smallest.exec, spec, seed);
    if (!dictionary.leaves_numbers(found[0], sample.c, smallest.exec, sample.other_case()))
      continue;
    const std::size_t before = evidence.list().size();
    evidence.add(smallest.exec, spec, seed);
    if (evidence.list().size() > before) found = dictionary.look_up(evidence.list());
  }
}

}  // namespace

/// The failure as it shows on its own: in the mode that failed, else after one other case. As it
/// was where it depends on more of what ran before.
FuzzResult FuzzFailures::confirm(const FuzzResult& failure) const {
  for (const harness::ExecMode mode : {failure.exec, harness::ExecMode::kSecondCall}) {
    FuzzResult alone = judge_.judge_alone(mode, failure.relation, failure.tried);
    if (has_failed(alone.row)) return alone;
  }
  return failure;
}

/// The smallest case that fails as `failure` does; where known mistakes explain that one, as one of
/// these does.
FuzzResult FuzzFailures::shrink(const FuzzResult& failure) const {
  constexpr double kSeconds = 30.0;
  const harness::FaultDictionary* const dictionary = harness::FaultDictionary::instance();
  std::vector<harness::Likeness> known;
  if (dictionary != nullptr && has_answer(failure)) {
    EvidenceList evidence(judge_);
    evidence.add(failure.exec, failure.tried.spec, failure.tried.seed);
    known = dictionary->look_up(evidence.list());
  }
  const auto is_explained = [&](const harness::CaseSpec& spec, std::uint64_t seed) {
    if (known.empty()) return true;
    EvidenceList evidence(judge_);
    evidence.add(failure.exec, spec, seed);
    return dictionary->explains(known, evidence.list());
  };
  FuzzResult smallest = failure;
  harness::shrink(
      failure.tried.spec, failure.tried.seed,
      [&](const harness::CaseSpec& spec, std::uint64_t seed) {
        FuzzResult tried =
            judge_.judge_alone(failure.exec, failure.relation,
                               {spec, seed, failure.tried.origin, failure.exec, failure.relation});
        if (!fails_alike(tried, failure) || !is_explained(spec, seed)) return false;
        smallest = std::move(tried);
        return true;
      },
      kSeconds);
  return smallest;
}

std::vector<harness::Likeness> FuzzFailures::look_up(const FuzzResult& first,
                                                     const FuzzResult& smallest) const {
  const harness::FaultDictionary* const dictionary = harness::FaultDictionary::instance();
  if (dictionary == nullptr || !has_answer(first)) return {};
  EvidenceList evidence(judge_);
  std::vector<harness::Likeness> found;
  // An answer that none of the mistakes explains cannot tell them apart, and is left out again.
  const auto narrow = [&](const harness::CaseSpec& spec, std::uint64_t seed) {
    const std::size_t before = evidence.list().size();
    evidence.add(first.exec, spec, seed);
    if (evidence.list().size() == before) return;
    std::vector<harness::Likeness> left = dictionary->look_up(evidence.list());
    if (left.empty()) {
      evidence.keep(before);
    } else {
      found = std::move(left);
    }
  };
  narrow(smallest.tried.spec, smallest.tried.seed);
  // Where the small case cannot tell two mistakes apart, the larger one may.
  narrow(first.tried.spec, first.tried.seed);
  // Then cases that are known to tell apart what is left.
  constexpr std::int64_t kMost = 60;
  for (std::int64_t n = 0; n < kMost && found.size() > 1; ++n) {
    const harness::PlannedCase planned = harness::random_case({}, n);
    const harness::FuzzCase next{planned.spec, planned.seed, {}, first.exec, {}};
    const Sample sample = judge_.make(first.exec, next.spec, next.seed);
    if (!dictionary->tells_apart(found[0], found[1], sample.c, first.exec, sample.other_case())) {
      continue;
    }
    narrow(next.spec, next.seed);
  }
  settle_nan(*dictionary, judge_, smallest, evidence, found);
  return found;
}

bool FuzzFailures::belongs(const FuzzResult& failure, const std::vector<std::string>& features,
                           const FailureGroup& group) const {
  if (failure.exec != group.first.exec) return false;
  if (fails_alike(failure, group.first) && has_kinds(features, group.features)) return true;
  if (group.likeness.empty() || !has_answer(failure)) return false;
  EvidenceList evidence(judge_);
  evidence.add(failure.exec, failure.tried.spec, failure.tried.seed);
  const auto distance = harness::FaultDictionary::instance()->distance(
      group.likeness.front().fault->id, evidence.list());
  return distance && *distance <= 1.0;
}

std::int64_t FuzzFailures::add(std::int64_t item, const FuzzResult& seen) {
  const FuzzResult failure = confirm(seen);
  const std::vector<std::string> features = non_default_features(failure.tried.spec);
  for (FailureGroup& group : groups_) {
    if (!belongs(failure, features, group)) continue;
    ++group.count;
    return group.item;
  }
  const bool shrinks = options_.shrink;
  FailureGroup group{item, failure, shrinks ? shrink(failure) : failure, shrinks, {}, {}, {}, 1};
  // The same small case under another first stage: one account is enough.
  for (FailureGroup& known : groups_) {
    if (known.smallest.tried.spec != group.smallest.tried.spec) continue;
    if (known.first.exec != failure.exec || !fails_alike(group.smallest, known.smallest)) continue;
    ++known.count;
    return known.item;
  }
  group.features = non_default_features(group.smallest.tried.spec);
  group.likeness = look_up(failure, group.smallest);
  group.inside = look_inside(group);
  groups_.push_back(std::move(group));
  return item;
}

const FailureGroup& FuzzFailures::group(std::int64_t item) const {
  return *std::ranges::find(groups_, item, &FailureGroup::item);
}

void FuzzFailures::count_again(std::int64_t item) {
  const auto group = std::ranges::find(groups_, item, &FailureGroup::item);
  if (group != groups_.end()) ++group->count;
}

/// Nothing where the backend shows every stage that may be the first bad one.
std::optional<FailureGroup::Inside> FuzzFailures::look_inside(const FailureGroup& group) const {
  const harness::ReportRow& row = group.smallest.row;
  if (!has_answer(group.smallest)) return std::nullopt;
  const harness::FuzzCase &small = group.smallest.tried, &first = group.first.tried;
  const std::vector<Stage> hidden = hidden_stages(small.spec.config, row.verdict, options_.taps);
  if (hidden.empty()) return std::nullopt;
  const auto is_possible = [&](Stage stage) {
    return stage == row.verdict.first_bad || std::ranges::find(hidden, stage) != hidden.end();
  };
  const std::array failing = {harness::FailingCase{small.spec, small.seed},
                              harness::FailingCase{first.spec, first.seed}};
  const auto answer = [&](const Case& c) { return judge_.final_answer(c); };
  // Constructed cases are called plainly, which shows nothing where plain calls are right.
  std::optional<harness::Localised> found;
  if (group.smallest.exec == harness::ExecMode::kPlain ||
      answer(make_case(small.spec, small.seed)).bad) {
    found = harness::localise(failing, answer);
    if (!is_possible(found->stage)) found.reset();
  }
  const std::string by_construction = found ? std::string(" by construction") +
                                                  (found->sure ? "" : ", not surely") + ": " +
                                                  found->because
                                            : "";
  const bool known = !group.likeness.empty() && is_possible(group.likeness.front().fault->stage);
  if (!known) {
    if (!found) return std::nullopt;
    return FailureGroup::Inside{found->stage, std::string(name_of(found->stage)) + by_construction};
  }
  const Stage like = group.likeness.front().fault->stage;
  std::string how(name_of(like));
  how += " by likeness";
  if (found && like == found->stage) {
    how += " and" + by_construction;
  } else if (found) {
    how += "; " + std::string(name_of(found->stage)) + by_construction;
  }
  return FailureGroup::Inside{like, how};
}

}  // namespace attn::cli
