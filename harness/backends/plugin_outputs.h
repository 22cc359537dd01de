#pragma once

#include "harness/backends/attn_plugin.h"
#include "reference/core/case.h"
#include "reference/core/trace.h"

namespace attn::harness {

/// Holds what a plug-in wrote against what it declared, and brings it into the form in which a
/// trace has it: every element written, rows that see no key as declared (they get their exact
/// values), lse in natural logarithms. Throws BackendFailure with the stage and the element.
void settle_outputs(const Case& c, const attn_capability& capability, Trace& trace);

}  // namespace attn::harness
