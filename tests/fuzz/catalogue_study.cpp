// Every planted bug as if it were a user's kernel: how small does its failure become, is it named,
// is its stage found without taps? Prints a line for each.

#include <gtest/gtest.h>

#include <array>
#include <chrono>
#include <cstdlib>
#include <iomanip>
#include <iostream>
#include <list>
#include <set>
#include <sstream>

#include "harness/backends/execution.h"
#include "harness/faults/dictionary.h"
#include "harness/fuzz/alike.h"
#include "harness/generate/space.h"
#include "tests/fuzz/planted.h"

namespace attn::harness {
namespace {

constexpr std::int64_t kMostCases = 300;

class Clock {
 public:
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

/// Looks a fault up as the fuzz verb does: the small case, the first one, then cases that tell
/// apart what is left.
std::vector<Likeness> look_up(const FaultInfo& fault, const Failure& failure,
                              const ShrinkResult& small, Taps taps,
                              std::span<const std::string_view> without = {}) {
  const FaultDictionary& dictionary = *FaultDictionary::instance();
  std::list<Answer> answers;
  std::vector<Evidence> evidence;
  const auto add = [&](const CaseSpec& spec, std::uint64_t seed) {
    const Answer& kept = answers.emplace_back(answer(fault.id, spec, seed, taps));
    evidence.push_back({kept.c, kept.trace, planted(fault.id)->arithmetic(spec.config)});
  };
  add(small.spec, small.seed);
  add(failure.spec, failure.seed);
  std::vector<Likeness> found = dictionary.look_up(evidence, without);
  constexpr std::int64_t kMost = 60;
  for (std::int64_t n = 0; n < kMost && found.size() > 1; ++n) {
    const PlannedCase planned = random_case({}, n);
    const Case c = make_case(planned.spec, planned.seed);
    if (!dictionary.tells_apart(found[0], found[1], c, ExecMode::kPlain, nullptr)) continue;
    add(planned.spec, planned.seed);
    found = dictionary.look_up(evidence, without);
  }
  return found;
}

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : "; ") + word;
  return text;
}

/// Those of the catalogue that are bugs; of them those that ATTN_STUDY names, "a b".
std::vector<FaultInfo> studied() {
  const char* const only = std::getenv("ATTN_STUDY");
  std::istringstream words(only == nullptr ? "" : only);
  std::set<std::string, std::less<>> wanted;
  for (std::string word; words >> word;) wanted.insert(word);
  std::vector<FaultInfo> faults;
  for (const FaultInfo& fault : fault_catalogue()) {
    if (!fault.equivalent_because.empty()) continue;
    if (wanted.empty() || wanted.contains(fault.id)) faults.push_back(fault);
  }
  return faults;
}

struct Totals {
  int shown = 0, named = 0, near = 0, small = 0;
  double slowest = 0.0;
  int blind = 0, staged = 0, sure = 0, sure_and_right = 0, blind_small = 0;
  int by_name = 0, one_out = 0, misnamed = 0;
  double slowest_stage = 0.0;
};

/// With every stage shown: how small, and named.
void study_taps(const FaultInfo& fault, Totals& totals) {
  const std::optional<Failure> failure = find_failure(fault, kMostCases);
  if (!failure) {
    std::cout << fault.id << ": not shown by a value in " << kMostCases << " cases, "
              << name_of(fault.detector) << std::endl;
    return;
  }
  ++totals.shown;
  const ShrinkResult small = shrunk(fault, *failure);
  const std::vector<std::string> features = non_default_features(small.spec);
  totals.small += features.size() <= 2;
  totals.slowest = std::max(totals.slowest, small.seconds);
  const Clock clock;
  const std::vector<Likeness> found = look_up(fault, *failure, small, Taps::kAll);
  const bool named = !found.empty() && found[0].fault->id == fault.id;
  totals.named += named;
  totals.near += !named && found.size() > 1 && found[1].fault->id == fault.id;
  std::cout << fault.id << ": " << features.size() << " features (" << joined(features) << ") of "
            << joined(all_sizes(small.spec)) << ", " << std::setprecision(2) << small.seconds
            << " s, " << small.tried << " tried; " << (named ? "named" : "NOT NAMED") << " in "
            << clock.seconds() << " s: " << to_string(found) << std::endl;
}

/// With the final answer alone: the first bad stage, by constructed cases and by the dictionary, of
/// all that is in it and without the bug itself.
void study_blind(const FaultInfo& fault, Totals& totals) {
  const std::optional<Failure> failure = find_failure(fault, kMostCases, Taps::kNone);
  if (!failure) {
    std::cout << fault.id << ": not shown by the final answer" << std::endl;
    return;
  }
  ++totals.blind;
  const ShrinkResult small = shrunk(fault, *failure, Taps::kNone);
  totals.blind_small += non_default_features(small.spec).size() <= 2;
  const Verdict shown = answer(fault.id, small.spec, small.seed).verdict;
  const auto is_right = [&](Stage stage) {
    return stage == fault.stage || stage == shown.first_bad;
  };
  const Clock clock;
  const std::array failing = {FailingCase{small.spec, small.seed},
                              FailingCase{failure->spec, failure->seed}};
  const Localised found = localise(failing, final_probe(fault.id));
  totals.slowest_stage = std::max(totals.slowest_stage, clock.seconds());
  const bool right = is_right(found.stage);
  totals.staged += right;
  totals.sure += found.sure;
  totals.sure_and_right += found.sure && right;
  const auto by_likeness = [&](std::span<const std::string_view> without) {
    const std::vector<Likeness> likeness = look_up(fault, *failure, small, Taps::kNone, without);
    return likeness.empty() ? found.stage : likeness.front().fault->stage;
  };
  const std::array own = {fault.id};
  totals.by_name += is_right(by_likeness({}));
  totals.one_out += is_right(by_likeness(own));
  totals.misnamed += !look_up(fault, *failure, small, Taps::kNone, own).empty();
  std::cout << "  " << fault.id << ": stage " << name_of(fault.stage);
  if (shown.first_bad && shown.first_bad != fault.stage) {
    std::cout << " (here " << name_of(*shown.first_bad) << ")";
  }
  std::cout << ", constructed " << name_of(found.stage) << (found.sure ? ", sure" : ", likely")
            << (right ? "" : " WRONG") << ": " << found.because << " [" << std::setprecision(2)
            << clock.seconds() << " s]" << std::endl;
}

TEST(Catalogue, FailuresAreShrunkAndNamed) {
  ASSERT_NE(FaultDictionary::instance(), nullptr);
  Totals totals;
  for (const FaultInfo& fault : studied()) study_taps(fault, totals);
  std::cout << totals.shown << " shown, " << totals.small
            << " shrunk to two features or fewer, slowest " << totals.slowest << " s; "
            << totals.named << " named first, " << totals.near << " second\n";
  EXPECT_GE(totals.small, 0.98 * totals.shown);
  EXPECT_LT(totals.slowest, 60.0);
  EXPECT_GE(totals.named, 0.9 * totals.shown);
}

TEST(Catalogue, StagesAreFoundFromFinalAnswers) {
  ASSERT_NE(FaultDictionary::instance(), nullptr);
  Totals totals;
  for (const FaultInfo& fault : studied()) study_blind(fault, totals);
  std::cout << totals.blind << " shown by the final answer, " << totals.blind_small
            << " shrunk to two features or fewer; stage right by constructed cases "
            << totals.staged << ", of them sure " << totals.sure_and_right << " of " << totals.sure
            << ", slowest " << totals.slowest_stage << " s; through the dictionary "
            << totals.by_name << "; without the bug's own entry " << totals.one_out << ", which "
            << totals.misnamed << " times names another\n";
  EXPECT_GE(totals.by_name, 0.85 * totals.blind);
}

/// Judges a backend with two bugs: the first shows where it makes a difference, else the second.
Answer answer_either(const FaultInfo& first, const FaultInfo& second, const CaseSpec& spec,
                     std::uint64_t seed) {
  Answer of_first = answer(first.id, spec, seed);
  const Answer right = answer("none", spec, seed);
  const bool differs = of_first.verdict.status == Status::kCrashed ||
                       !first_difference(of_first.trace, right.trace).empty();
  return differs ? std::move(of_first) : answer(second.id, spec, seed);
}

/// The next bug of the catalogue that spoils the same stage first.
const FaultInfo* rival_of(const FaultInfo& fault) {
  bool behind = false;
  for (const FaultInfo& other : fault_catalogue()) {
    if (behind && other.stage == fault.stage && other.equivalent_because.empty()) return &other;
    behind = behind || other.id == fault.id;
  }
  return nullptr;
}

/// A backend with two bugs of one stage: is what is left still a case of the bug that it began
/// with?
TEST(Catalogue, ShrinkingStaysWithItsBug) {
  ASSERT_NE(FaultDictionary::instance(), nullptr);
  constexpr std::size_t kEvery = 4;
  int pairs = 0, slipped = 0;
  const std::vector<FaultInfo> faults = studied();
  for (std::size_t i = 0; i < faults.size(); i += kEvery) {
    const FaultInfo& fault = faults[i];
    const FaultInfo* const rival = rival_of(fault);
    const auto failure = find_failure(fault, kMostCases);
    if (rival == nullptr || !failure) continue;
    ++pairs;
    const FaultDictionary& dictionary = *FaultDictionary::instance();
    const auto evidence_of = [&](const Answer& a) {
      return std::vector<Evidence>{{a.c, a.trace, planted(fault.id)->arithmetic(a.c.config)}};
    };
    const Answer first = answer(fault.id, failure->spec, failure->seed);
    const std::vector<Likeness> known = dictionary.look_up(evidence_of(first));
    const ShrinkResult small =
        shrink(failure->spec, failure->seed, [&](const CaseSpec& spec, std::uint64_t seed) {
          const Answer tried = answer_either(fault, *rival, spec, seed);
          if (!fails_alike(tried.verdict, failure->verdict)) return false;
          return known.empty() || dictionary.explains(known, evidence_of(tried));
        });
    if (fails_alike(answer(fault.id, small.spec, small.seed).verdict, failure->verdict)) continue;
    ++slipped;
    std::cout << fault.id << " slipped to " << rival->id << ": " << to_json(small.spec)
              << std::endl;
  }
  EXPECT_LE(slipped, 0.05 * pairs);
  std::cout << slipped << " of " << pairs << " slipped to another bug of the same stage\n";
}

}  // namespace
}  // namespace attn::harness
