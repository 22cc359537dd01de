#pragma once

#include "harness/compare/compare.h"

namespace attn::harness {

/// Whether a smaller case fails as the first one did: the stage that was bad first is bad in it as
/// well, and so is nothing before the step that this stage belongs to (projections, norms,
/// rotations, caches, attention). Where keys are all equal, say, a wrong head shows in attn_out
/// alone; the plainer case with other keys shows it in lse too. Without a first bad stage (a crash,
/// a time-out): the same status.
bool fails_alike(const Verdict& smaller, const Verdict& first);

}  // namespace attn::harness
