#pragma once

#include <string>

#include "harness/compare/arithmetic.h"
#include "reference/core/case.h"
#include "reference/core/trace.h"

namespace attn::harness {

/// What is wrong with an lse that is not the right one: "logarithm to base 2 instead of e", "heads
/// before tokens", "without the sink", or two of these at once. "" when none of them makes the
/// right lse out of it within the bound.
std::string lse_mistake(const Case& c, const Trace& got, const Arithmetic& arithmetic);

}  // namespace attn::harness
