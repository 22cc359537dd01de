#pragma once

#include <cstdint>

#include "harness/generate/case_spec.h"

namespace attn::harness {

/// A layout for a case: one feature, or several, of MemoryLayout. Strides of 0 only where the case
/// starts at attention, since they make its kv heads equal.
MemoryLayout random_layout(const CaseSpec& spec, std::uint64_t seed);

}  // namespace attn::harness
