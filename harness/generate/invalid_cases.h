#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "harness/generate/case_spec.h"

namespace attn::harness {

/// A spec that must be refused, and what the refusal names.
struct InvalidCase {
  CaseSpec spec;
  std::string rule;  ///< of reference/core/rules.h; "" for a rule of specs
  std::string field;
};

/// Cases of the space, each changed so that it breaks one rule: every rule of configs, and those of
/// rows, layers and profiles. `seed` draws the cases.
std::vector<InvalidCase> invalid_cases(std::uint64_t seed);

}  // namespace attn::harness
