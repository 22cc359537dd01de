#pragma once

#include <cstdint>
#include <vector>

#include "reference/core/tensor.h"

namespace attn::golden {

/// The numbers of the second evaluation: 64 bits of mantissa where the reference has 53.
using Real = long double;

/// Row-major [rows, cols].
struct Matrix {
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::vector<Real> data;

  Matrix() = default;
  Matrix(std::int64_t r, std::int64_t n)
      : rows(r), cols(n), data(static_cast<std::size_t>(r * n)) {}
  Real& at(std::int64_t r, std::int64_t n) { return data[static_cast<std::size_t>(r * cols + n)]; }
  Real at(std::int64_t r, std::int64_t n) const {
    return data[static_cast<std::size_t>(r * cols + n)];
  }
};

/// The elements of a stored tensor as [rows, cols].
Matrix decoded(const Tensor& tensor, std::int64_t rows, std::int64_t cols);

/// Every element moved to the nearest of -bound .. bound.
void clip(Matrix& m, Real bound);

}  // namespace attn::golden
