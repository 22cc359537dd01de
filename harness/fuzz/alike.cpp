#include "harness/fuzz/alike.h"

#include <algorithm>

namespace attn::harness {
namespace {

/// The first stage of the step that a stage belongs to.
Stage step_of(Stage stage) {
  switch (stage) {
    case Stage::kKProj:
    case Stage::kVProj:
      return Stage::kQProj;
    case Stage::kKNorm:
      return Stage::kQNorm;
    case Stage::kKRope:
      return Stage::kQRope;
    case Stage::kCacheV:
      return Stage::kCacheK;
    case Stage::kAttnOut:
      return Stage::kLse;
    default:
      return stage;
  }
}

bool is_bad(const Verdict& verdict, Stage stage) {
  return std::ranges::any_of(verdict.stages, [stage](const StageReport& report) {
    return report.stage == stage && report.bad > 0;
  });
}

}  // namespace

bool fails_alike(const Verdict& smaller, const Verdict& first) {
  if (smaller.status != first.status) return false;
  if (smaller.first_bad == first.first_bad) return true;
  if (!smaller.first_bad || !first.first_bad) return false;
  return step_of(*smaller.first_bad) == step_of(*first.first_bad) &&
         is_bad(smaller, *first.first_bad);
}

}  // namespace attn::harness
