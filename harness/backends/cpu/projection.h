#pragma once

#include <cstdint>
#include <optional>

#include "harness/backends/cpu/weight_rows.h"
#include "reference/core/devices.h"
#include "reference/core/tensor.h"

namespace attn::harness::cpu {

/// A projection y = clip(x * W^T + bias), W being some rows and columns of a weight.
struct Projection {
  const WeightRows* weight = nullptr;
  std::int64_t weight_width = 0;          ///< all columns of the weight
  Range rows;                             ///< that y's columns belong to
  std::int64_t first_column = 0;          ///< x belongs to columns first_column .. + x.width - 1
  const Tensor* bias = nullptr;           ///< [rows of the weight], or none
  std::optional<double> activation_clip;  ///< bound of y's elements
};

/// Writes y, [x.count, projection.rows.count]. The bits do not depend on `threads`.
void project(const Rows& x, const Projection& projection, int threads, float* y);

}  // namespace attn::harness::cpu
