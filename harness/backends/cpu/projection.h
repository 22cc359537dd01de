#pragma once

#include <cstdint>
#include <optional>

#include "harness/backends/cpu/unpack.h"
#include "reference/core/tensor.h"

namespace attn::harness::cpu {

/// A projection y = clip_y(x * clip_w(W)^T + bias), W being rows first .. first + count - 1 of
/// `weight`.
struct Projection {
  const Tensor* weight = nullptr;  ///< [>= first + count, width of x]
  std::int64_t first = 0;
  std::int64_t count = 0;
  const Tensor* bias = nullptr;           ///< [count], or none
  std::optional<double> weight_clip;      ///< bound of W's elements
  std::optional<double> activation_clip;  ///< bound of y's elements
};

/// Writes y, [x.count, projection.count]. The bits do not depend on `threads`.
void project(const Rows& x, const Projection& projection, int threads, float* y);

}  // namespace attn::harness::cpu
