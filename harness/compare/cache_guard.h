#pragma once

#include <string>

#include "harness/compare/stage_score.h"
#include "reference/core/case.h"
#include "reference/core/trace.h"

namespace attn::harness {

/// Holds a paged cache after the call against the one before it: every byte outside the new tokens'
/// slots of the case's layer must be the same, other layers, unused slots and foreign pages
/// included, scales too, and the new slots must hold the rows of `logical` (the backend's cache
/// stage; may be absent) rounded to the pool's type. "" when so, else one line that names the first
/// slot at fault.
std::string cache_violation(const Case& c, const KvCache& after, bool keys, const Tensor* logical);

/// "page 3, layer 0, slot 5": where position p of sequence b lies.
std::string describe_slot(const KvCache& cache, std::int64_t page, std::int64_t layer,
                          std::int64_t slot);

}  // namespace attn::harness
