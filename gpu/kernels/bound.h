#pragma once

#include <limits>

#include "gpu/kernels/host_device.h"

namespace attn::gpu {

/// The bound of a product that has none. A bound of 0 is one: it leaves zeros.
inline constexpr float kNoBound = std::numeric_limits<float>::infinity();

/// y within [-bound, bound]. Comparisons, not fminf: NaN stays NaN; with kNoBound every y stays.
ATTN_HOST_DEVICE float held_within(float y, float bound) {
  return y > bound ? bound : y < -bound ? -bound : y;
}

}  // namespace attn::gpu
