// Every planted bug as if it were a user's kernel: how small does its failure become, is it named,
// is its stage found without taps? Prints a line for each.

#include <gtest/gtest.h>

#include <chrono>
#include <iomanip>
#include <iostream>
#include <list>

#include "harness/faults/dictionary.h"
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
                              const ShrinkResult& small, bool taps) {
  const FaultDictionary& dictionary = *FaultDictionary::instance();
  std::list<Answer> answers;
  std::vector<Evidence> evidence;
  const auto add = [&](const CaseSpec& spec, std::uint64_t seed) {
    Answer& kept = answers.emplace_back(answer(fault.id, spec, seed));
    if (!taps) kept.trace = final_answer(kept.c, std::move(kept.trace));
    evidence.push_back({kept.c, kept.trace, planted(fault.id)->arithmetic(spec.config)});
  };
  add(small.spec, small.seed);
  add(failure.spec, failure.seed);
  std::vector<Likeness> found = dictionary.look_up(evidence);
  constexpr std::int64_t kMost = 60;
  for (std::int64_t n = 0; n < kMost && found.size() > 1; ++n) {
    const PlannedCase planned = random_case({}, n);
    const Case c = make_case(planned.spec, planned.seed);
    if (!dictionary.tells_apart(found[0], found[1], c, ExecMode::kPlain, nullptr)) continue;
    add(planned.spec, planned.seed);
    found = dictionary.look_up(evidence);
  }
  return found;
}

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : "; ") + word;
  return text;
}

struct Totals {
  int shown = 0, named = 0, near = 0, small = 0, staged = 0, stages = 0, staged_by_name = 0;
  double slowest = 0.0;
};

void study(const FaultInfo& fault, Totals& totals) {
  const std::optional<Failure> failure = find_failure(fault, kMostCases);
  if (!failure) {
    std::cout << fault.id << ": not shown by a value in " << kMostCases << " cases, "
              << name_of(fault.detector) << "\n";
    return;
  }
  ++totals.shown;
  const ShrinkResult small = shrunk(fault, *failure);
  const std::vector<std::string> features = non_default_features(small.spec);
  totals.small += features.size() <= 2;
  totals.slowest = std::max(totals.slowest, small.seconds);
  const Clock clock;
  const std::vector<Likeness> found = look_up(fault, *failure, small, true);
  const bool named = !found.empty() && found[0].fault->id == fault.id;
  totals.named += named;
  totals.near += !named && found.size() > 1 && found[1].fault->id == fault.id;
  std::cout << fault.id << ": " << features.size() << " features (" << joined(features) << ") of "
            << joined(all_sizes(small.spec)) << ", " << std::setprecision(2) << small.seconds
            << " s, " << small.tried << " tried; " << (named ? "named" : "NOT NAMED") << " in "
            << clock.seconds() << " s: " << to_string(found);
  const Answer last = answer(fault.id, small.spec, small.seed);
  const FinalProbe probe = final_probe(fault.id);
  if (probe(last.c)) {  // else nothing of it reaches the final answer
    ++totals.stages;
    const Stage stage = localise(small.spec, small.seed, probe);
    const bool right = stage == *failure->verdict.first_bad || stage == fault.stage;
    totals.staged += right;
    const std::vector<Likeness> blind = look_up(fault, *failure, small, false);
    const Stage by_name = blind.empty() ? stage : blind.front().fault->stage;
    totals.staged_by_name += by_name == fault.stage || by_name == *failure->verdict.first_bad;
    std::cout << "; stage " << name_of(fault.stage) << ", without taps " << name_of(stage)
              << (right ? "" : " WRONG") << ", with the dictionary " << name_of(by_name);
  }
  std::cout << std::endl;
}

TEST(Catalogue, FailuresAreShrunkNamedAndLocalised) {
  ASSERT_NE(FaultDictionary::instance(), nullptr);
  Totals totals;
  for (const FaultInfo& fault : fault_catalogue()) {
    if (fault.equivalent_because.empty()) study(fault, totals);
  }
  std::cout << totals.shown << " shown, " << totals.small
            << " shrunk to two features or fewer, slowest " << totals.slowest << " s; "
            << totals.named << " named first, " << totals.near << " second; stage without taps "
            << totals.staged << " of " << totals.stages << ", with the dictionary "
            << totals.staged_by_name << "\n";
  EXPECT_GE(totals.small, 0.98 * totals.shown);
  EXPECT_LT(totals.slowest, 60.0);
  EXPECT_GE(totals.named, 0.9 * totals.shown);
  EXPECT_GE(totals.staged_by_name, 0.85 * totals.stages);
}

}  // namespace
}  // namespace attn::harness
