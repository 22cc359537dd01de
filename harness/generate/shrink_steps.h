#pragma once

#include <vector>

#include "harness/generate/case_spec.h"

namespace attn::harness {

/// Every valid spec that is one step simpler than this one, the largest steps first. A step goes
/// towards the plainest case in one field and never back, so that shrinking by steps ends.
std::vector<CaseSpec> simpler_specs(const CaseSpec& spec);

}  // namespace attn::harness
