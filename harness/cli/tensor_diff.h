#pragma once

#include <cstdint>
#include <string>

#include "reference/core/tensor.h"

namespace attn::cli {

/// How two tensors of one shape differ.
struct TensorDiff {
  std::int64_t elements = 0;
  std::int64_t differing = 0;  ///< in bits; in value where the types differ
  double largest = 0.0;        ///< |a - b|; a NaN or infinity against anything else is infinite
  std::int64_t where = -1;     ///< flat index of the largest difference, -1 when nothing differs
  double a = 0.0, b = 0.0;     ///< the values there
};

/// Throws Error(kInternal) when the shapes differ.
TensorDiff diff_tensors(const Tensor& a, const Tensor& b);

/// "[3, 17]": the index of a flat position.
std::string index_text(const Shape& shape, std::int64_t flat);

}  // namespace attn::cli
