#include "harness/generate/shrink.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "harness/generate/feature_axes.h"
#include "harness/generate/shrink_steps.h"
#include "reference/core/error.h"

namespace attn::harness {
namespace {

using FailsAlike = std::function<bool(const CaseSpec&, std::uint64_t)>;

class Shrinker {
 public:
  Shrinker(const CaseSpec& spec, std::uint64_t seed, const FailsAlike& fails_alike, double seconds)
      : first_{spec, seed}, result_{spec, seed}, fails_alike_(fails_alike), seconds_(seconds) {}

  ShrinkResult run() {
    take_steps();
    while (rebuild() || drop_with_other_values() || step_with_other_values()) take_steps();
    lower_seed();
    result_.tried = tried_;
    result_.seconds = elapsed();
    return std::move(result_);
  }

 private:
  using Clock = std::chrono::steady_clock;
  double elapsed() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }
  bool has_time() const { return elapsed() < seconds_; }

  bool takes(const CaseSpec& spec, std::uint64_t seed) {
    ++tried_;
    if (!fails_alike_(spec, seed)) return false;
    result_.spec = spec;
    result_.seed = seed;
    return true;
  }

  void take_steps();
  bool rebuild();
  bool rebuild_with(const std::vector<const FeatureAxis*>& axes, std::size_t most);
  bool try_with(const std::vector<const FeatureAxis*>& kept, std::uint64_t seeds);
  bool drop_with_other_values();
  bool step_with_other_values();
  void lower_seed();

  static constexpr std::uint64_t kShortSeeds = 4;

  const ShrinkResult first_;
  ShrinkResult result_;
  const FailsAlike& fails_alike_;
  double seconds_;
  std::int64_t tried_ = 0;
  std::vector<const FeatureAxis*> tried_without_;  ///< what drop_with_other_values() failed on
  Clock::time_point start_ = Clock::now();
};

/// Simpler by one step after the other, until no step fails alike.
void Shrinker::take_steps() {
  bool smaller = true;
  while (smaller && has_time()) {
    smaller = false;
    // After a success go on behind the step that succeeded: the ones before it have just failed,
    // and the next pass tries them again.
    std::vector<CaseSpec> simpler = simpler_specs(result_.spec);
    for (std::size_t i = 0; i < simpler.size() && has_time();) {
      if (!takes(simpler[i], result_.seed)) {
        ++i;
        continue;
      }
      smaller = true;
      simpler = simpler_specs(result_.spec);
    }
  }
}

/// From the small end: the failing case's sizes with no feature, with each one, with each two, as
/// long as that is fewer than what steps have left. Steps take away one thing at a time, and where
/// a bug needs one of two things, or other values, they end too early.
bool Shrinker::rebuild() {
  const std::size_t left = non_default_features(result_.spec).size();
  std::vector<const FeatureAxis*> axes;
  for (const FeatureAxis& axis : feature_axes()) {
    if (axis.value(first_.spec)) axes.push_back(&axis);
  }
  for (std::size_t most = 0; most < std::min<std::size_t>(left, 3); ++most) {
    if (rebuild_with(axes, most)) return true;
  }
  return false;
}

bool Shrinker::rebuild_with(const std::vector<const FeatureAxis*>& axes, std::size_t most) {
  constexpr std::uint64_t kSeeds = 3;
  if (most == 0) return try_with({}, kSeeds);
  for (std::size_t i = 0; i < axes.size(); ++i) {
    if (most == 1 && try_with({axes[i]}, kSeeds)) return true;
    for (std::size_t j = i + 1; most == 2 && j < axes.size(); ++j) {
      if (try_with({axes[i], axes[j]}, kSeeds)) return true;
    }
  }
  return false;
}

/// The failing case with these features alone, as a layer and as attention, under several seeds.
bool Shrinker::try_with(const std::vector<const FeatureAxis*>& kept, std::uint64_t seeds) {
  CaseSpec spec = first_.spec;
  for (const FeatureAxis& axis : feature_axes()) {
    if (std::ranges::find(kept, &axis) == kept.end() && axis.value(spec)) axis.reset(spec);
  }
  std::vector<CaseSpec> specs;
  if (spec.config.entry_point == EntryPoint::kForward) specs.push_back(attention_alone(spec));
  specs.push_back(spec);
  for (CaseSpec& one : specs) {
    settle(one);
    try {
      validate(one);
    } catch (const Error&) {
      continue;
    }
    for (std::uint64_t i = 0; i < seeds && has_time(); ++i) {
      if (takes(one, first_.seed + i)) return true;
    }
  }
  return false;
}

/// Where more than two features are left: all but one of them, under many seeds. A profile may be
/// there only because it makes the values that the bug needs often.
bool Shrinker::drop_with_other_values() {
  constexpr std::size_t kFew = 2;
  constexpr std::uint64_t kSeeds = 24;
  std::vector<const FeatureAxis*> left;
  for (const FeatureAxis& axis : feature_axes()) {
    if (axis.value(result_.spec)) left.push_back(&axis);
  }
  if (left.size() <= kFew || tried_without_ == left) return false;
  tried_without_ = left;
  for (std::size_t i = 0; i < left.size(); ++i) {
    std::vector<const FeatureAxis*> kept = left;
    kept.erase(kept.begin() + static_cast<std::ptrdiff_t>(i));
    if (try_with(kept, kSeeds)) return true;
  }
  return false;
}

/// One step simpler with other values: the largest logit may lie where the shorter case has none.
bool Shrinker::step_with_other_values() {
  for (const CaseSpec& simpler : simpler_specs(result_.spec)) {
    for (std::uint64_t n = 1; n < kShortSeeds && has_time(); ++n) {
      if (n != result_.seed && takes(simpler, n)) return true;
    }
  }
  return false;
}

void Shrinker::lower_seed() {
  for (std::uint64_t n = 1; n < std::min(kShortSeeds, result_.seed) && has_time(); ++n) {
    if (takes(result_.spec, n)) return;
  }
}

}  // namespace

ShrinkResult shrink(const CaseSpec& spec, std::uint64_t seed, const FailsAlike& fails_alike,
                    double seconds) {
  return Shrinker(spec, seed, fails_alike, seconds).run();
}

}  // namespace attn::harness
