#pragma once

#include <cstdint>

#include "reference/core/config.h"

namespace attn::harness::cpu {

/// Keys begin .. end - 1; empty when end <= begin.
struct KeyRange {
  std::int64_t begin = 0;
  std::int64_t end = 0;
};

/// The keys out of 0 .. keys - 1 that the query at `position` sees (which may be negative or past
/// the last key). Every mask variant lets a query see one run of keys.
KeyRange visible_keys(const MaskConfig& mask, std::int64_t position, std::int64_t keys);

}  // namespace attn::harness::cpu
