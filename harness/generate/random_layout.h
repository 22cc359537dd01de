#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "harness/generate/space.h"

namespace attn::harness {

/// A layout for a case: one feature, or several, of MemoryLayout. Strides of 0 only where the case
/// starts at attention, since they make its kv heads equal.
MemoryLayout random_layout(const CaseSpec& spec, std::uint64_t seed);

/// Likewise without strides of 0, so that the values of a case stay what they are.
MemoryLayout layout_beside_values(std::uint64_t seed);

/// The layouts that a gate deals over its cases, the standard one first and one that is drawn last.
/// Strides of 0 are not among them: they would change the values of the cases.
std::vector<std::string> dealt_layouts();

/// Deals layouts to the cases made from `points` so that each meets as many values of every axis as
/// there are cases for, and returns which got which. Nothing else of a case changes.
std::vector<int> deal_layouts(std::span<const Point> points, std::span<PlannedCase> cases);

}  // namespace attn::harness
