#include "harness/faults/dictionary.h"

#include <algorithm>
#include <cmath>
#include <exception>
#include <limits>

#include "harness/backends/execution.h"
#include "harness/compare/compare.h"
#include "harness/compare/stage_score.h"
#include "harness/report/format.h"
#include "reference/core/error.h"

namespace attn::harness {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// Whether the mistake shows in values at all, in a call that can be made here.
bool shows_in_values(const FaultInfo& fault) {
  return fault.equivalent_because.empty() && fault.detector != Detector::kRefusal &&
         fault.detector != Detector::kGraphReplay;
}

/// One piece of evidence, with what every fault is held against on it.
struct Prepared {
  const Evidence* evidence;
  StageAllowances allowances;
  Trace right;  ///< of the library with every bug off
};

/// The fault's output on the evidence, `block` keys at a time; nothing when it breaks.
std::optional<Trace> run_fault(const FaultyLibrary& library, std::string_view id, const Case& c,
                               ExecMode mode, const Case* other, std::int64_t block) {
  try {
    return execute(*library.make(id, block), mode, c, other, stages_of(c.config));
  } catch (const std::exception&) {  // what it reads may be no size and no page
    return std::nullopt;
  }
}

/// Largest |a - b| of the stages that `got` has, in units of the allowance.
double distance_of(const Prepared& prepared, const Trace& answer) {
  const Trace& got = prepared.evidence->got;
  double worst = 0.0;
  for (const Stage stage : all_stages()) {
    if (!got.has(stage) || got.is_given(stage) || !answer.has(stage)) continue;
    const std::vector<double>& allowed = prepared.allowances[static_cast<std::size_t>(stage)];
    const std::vector<double> a = got[stage].values(), b = answer[stage].values();
    if (a.size() != b.size()) return kInfinity;
    for (std::size_t i = 0; i < a.size(); ++i) {
      worst = std::max(worst, error_ratio(a[i], b[i], i < allowed.size() ? allowed[i] : 0.0));
    }
  }
  return worst;
}

/// Whether there is NaN, and beside it no number that could be told from another mistake's.
bool is_nan_throughout(const Trace& got) {
  bool some = false;
  for (const Stage stage : all_stages()) {
    if (!got.has(stage) || got.is_given(stage)) continue;
    for (const double value : got[stage].values()) {
      if (std::isfinite(value) && value != 0.0) return false;
      some |= std::isnan(value);
    }
  }
  return some;
}

std::vector<Prepared> prepare(const FaultyLibrary& library, std::span<const Evidence> evidence) {
  std::vector<Prepared> prepared;
  for (const Evidence& one : evidence) {
    std::optional<Trace> right =
        run_fault(library, "none", one.c, one.mode, one.other, FaultyLibrary::kBlock);
    if (!right) continue;
    prepared.push_back({&one, allowances(one.c, one.got, one.arithmetic), std::move(*right)});
  }
  return prepared;
}

/// Nothing when the fault's output is right on all evidence; ends early once beyond `limit`.
std::optional<double> distance_with_block(const FaultyLibrary& library, std::string_view id,
                                          std::span<const Prepared> prepared, std::int64_t block,
                                          double limit) {
  bool differs = false;
  double worst = 0.0;
  for (const Prepared& one : prepared) {
    const std::optional<Trace> answer =
        run_fault(library, id, one.evidence->c, one.evidence->mode, one.evidence->other, block);
    if (!answer) return kInfinity;
    differs |= !first_difference(*answer, one.right).empty();
    worst = std::max(worst, distance_of(one, *answer));
    if (worst > limit) return worst;
  }
  if (!differs) return std::nullopt;
  return worst;
}

/// The same with the backend's own block as well: what some mistakes do depends on it.
std::optional<double> distance_to(const FaultyLibrary& library, std::string_view id,
                                  std::span<const Prepared> prepared, double limit) {
  const auto distance = distance_with_block(library, id, prepared, FaultyLibrary::kBlock, limit);
  const std::int64_t block = prepared.front().evidence->arithmetic.block;
  if (!distance || *distance <= limit || block <= 0) return distance;
  const auto own = distance_with_block(library, id, prepared, block, limit);
  return own ? std::min(*distance, *own) : distance;
}

}  // namespace

const FaultDictionary* FaultDictionary::instance() {
  static const auto dictionary = []() -> std::optional<FaultDictionary> {
    try {
      return FaultDictionary(FaultyLibrary::instance());
    } catch (const Error&) {
      return std::nullopt;
    }
  }();
  return dictionary ? &*dictionary : nullptr;
}

std::optional<double> FaultDictionary::distance(std::string_view fault,
                                                std::span<const Evidence> evidence) const {
  const std::vector<Prepared> prepared = prepare(library_, evidence);
  if (prepared.empty()) return std::nullopt;
  return distance_to(library_, fault, prepared, kInfinity);
}

std::vector<Likeness> FaultDictionary::look_up(std::span<const Evidence> evidence,
                                               std::span<const std::string_view> without) const {
  const std::vector<Prepared> prepared = prepare(library_, evidence);
  if (prepared.empty()) return {};
  double from_right = 0.0;
  for (const Prepared& one : prepared) {
    from_right = std::max(from_right, distance_of(one, one.right));
  }
  const bool by_nan_alone = std::ranges::all_of(
      prepared, [](const Prepared& one) { return is_nan_throughout(one.evidence->got); });
  std::vector<Likeness> found;
  constexpr double kWithinBound = 1.0;
  for (const FaultInfo& fault : fault_catalogue()) {
    if (!shows_in_values(fault) || std::ranges::find(without, fault.id) != without.end()) continue;
    const auto distance = distance_to(library_, fault.id, prepared, kWithinBound);
    if (distance && *distance <= kWithinBound) found.push_back({&fault, *distance, by_nan_alone});
  }
  std::ranges::stable_sort(found, {}, &Likeness::of_bound);
  // Half as far as the right answer says nothing.
  constexpr double kClearly = 4.0;
  if (found.empty() || kClearly * found[0].of_bound > from_right) return {};
  return found;
}

bool FaultDictionary::explains(std::span<const Likeness> faults,
                               std::span<const Evidence> evidence) const {
  const std::vector<Prepared> prepared = prepare(library_, evidence);
  if (prepared.empty()) return false;
  return std::ranges::any_of(faults, [&](const Likeness& likeness) {
    const auto distance = distance_to(library_, likeness.fault->id, prepared, 1.0);
    return distance && *distance <= 1.0;
  });
}

bool FaultDictionary::tells_apart(const Likeness& a, const Likeness& b, const Case& c,
                                  ExecMode mode, const Case* other) const {
  const auto run = [&](const Likeness& likeness) {
    return run_fault(library_, likeness.fault->id, c, mode, other, FaultyLibrary::kBlock);
  };
  const std::optional<Trace> of_a = run(a), of_b = run(b);
  return of_a && of_b && !first_difference(*of_a, *of_b).empty();
}

bool FaultDictionary::leaves_numbers(const Likeness& likeness, const Case& c, ExecMode mode,
                                     const Case* other) const {
  const std::optional<Trace> answer =
      run_fault(library_, likeness.fault->id, c, mode, other, FaultyLibrary::kBlock);
  return answer && !is_nan_throughout(*answer);
}

std::string to_string(std::span<const Likeness> likenesses) {
  std::string text;
  const bool tied = likenesses.size() > 1 && likenesses[1].of_bound <= 2.0 * likenesses[0].of_bound;
  for (const Likeness& likeness :
       likenesses.first(std::min<std::size_t>(likenesses.size(), tied ? 2 : 1))) {
    if (!text.empty()) text += " or ";
    text += likeness.fault->summary;
    text += likeness.by_nan_alone ? " (NaN throughout as well, which says little)"
            : likeness.of_bound == 0.0
                ? " (exactly)"
                : " (within " + format_ratio(likeness.of_bound) + " of the bound)";
  }
  return text;
}

}  // namespace attn::harness
