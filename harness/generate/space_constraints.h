#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "harness/generate/space.h"

namespace attn::harness {

/// What values of a few axes may not meet.
struct Constraint {
  std::string why;
  std::vector<int> axes;
  /// Value numbers in the order of `axes`, all given.
  std::function<bool(std::span<const int>)> allows;
};

/// Every rule of the space, in a fixed order.
std::span<const Constraint> space_constraints();

}  // namespace attn::harness
