#pragma once

#include <cstdint>

#include "harness/backends/cpu/simd.h"

namespace attn::harness::cpu {

/// out[c] = sum_i a[i] * b[c * stride + i] for c = 0 .. 3; n is a multiple of kLanes. Each sum runs
/// in kLanes lanes, so its longest chain of additions is n / 8 + 3, and it does not depend on its
/// neighbours.
inline void dot4(const float* a, const float* b, std::int64_t stride, std::int64_t n, float* out) {
  Float4 low[4] = {};
  Float4 high[4] = {};
  for (std::int64_t i = 0; i < n; i += kLanes) {
    const Float4 a_low = load4(a + i);
    const Float4 a_high = load4(a + i + 4);
    for (int c = 0; c < 4; ++c) {
      low[c] += a_low * load4(b + c * stride + i);
      high[c] += a_high * load4(b + c * stride + i + 4);
    }
  }
  for (int c = 0; c < 4; ++c) {
    const Float4 sum = low[c] + high[c];
    out[c] = (sum[0] + sum[2]) + (sum[1] + sum[3]);
  }
}

/// y[i] += sum_k p[k] * v[k * stride + i], each sum over k = 0 .. keys - 1 in order from zero, for
/// i = 0 .. n - 1; n is a multiple of kLanes.
inline void add_weighted_rows(const float* p, std::int64_t keys, const float* v,
                              std::int64_t stride, std::int64_t n, float* y) {
  constexpr std::int64_t kTile = 4 * kLanes;
  std::int64_t i = 0;
  for (; i + kTile <= n; i += kTile) {
    Float4 sum[kTile / 4] = {};
    for (std::int64_t k = 0; k < keys; ++k) {
      const Float4 weight = splat4(p[k]);
      for (int c = 0; c < kTile / 4; ++c) sum[c] += weight * load4(v + k * stride + i + 4 * c);
    }
    for (int c = 0; c < kTile / 4; ++c) store4(y + i + 4 * c, load4(y + i + 4 * c) + sum[c]);
  }
  for (; i < n; i += 4) {
    Float4 sum = {};
    for (std::int64_t k = 0; k < keys; ++k) sum += splat4(p[k]) * load4(v + k * stride + i);
    store4(y + i, load4(y + i) + sum);
  }
}

}  // namespace attn::harness::cpu
