#pragma once

#include <cstdint>

#include "reference/stages/matrix.h"

namespace attn::reference {

/// Rows and columns of a weight that share one scale.
struct ScaleBlock {
  std::int64_t rows = 1;
  std::int64_t cols = 1;
};

/// The scale of every element of a weight [rows, cols]: element (n, k) has the stored scale
/// (n / block.rows, k / block.cols), the last block of an axis may be cut off. A scale per tensor
/// is one block of the whole weight, a scale per row has block.cols = cols.
Matrix spread_scales(const Tensor& scale, std::int64_t rows, std::int64_t cols, ScaleBlock block);

/// Consecutive values of a row of activations that share one scale, quantised: value_j = code_j *
/// scale.
struct QuantisedBlock {
  Eigen::RowVectorXd code;  ///< [columns]
  double scale = 1.0;
};

using RowView = Eigen::Ref<const Eigen::RowVectorXd>;

/// The largest |x_j|; NaN when one is NaN, 0 when there is none.
double largest_magnitude(const RowView& x);

}  // namespace attn::reference
