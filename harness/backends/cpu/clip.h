#pragma once

#include <cstdint>

namespace attn::harness::cpu {

/// Bounds each value by -bound and bound, as float32; NaN stays.
inline void clip(float* values, std::int64_t count, double bound) {
  const auto limit = static_cast<float>(bound);
  for (std::int64_t i = 0; i < count; ++i) {
    values[i] = values[i] < -limit ? -limit : (values[i] > limit ? limit : values[i]);
  }
}

}  // namespace attn::harness::cpu
