#pragma once

#include <Eigen/Core>
#include <cstdint>

#include "reference/core/tensor.h"

namespace attn::reference {

/// Float64 and row-major, like every stored tensor: one row per token (or key, or output channel).
using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// Any block of a Matrix, read without a copy.
using MatrixView = Eigen::Ref<const Matrix>;

/// All elements of a stored tensor, decoded, as [rows, cols]. rows * cols is the tensor's size.
Matrix decode_matrix(const Tensor& stored, std::int64_t rows, std::int64_t cols);

/// Rows first .. first+rows-1 of a stored tensor whose rows have `cols` elements, decoded.
Matrix decode_rows(const Tensor& stored, std::int64_t first, std::int64_t rows, std::int64_t cols);

/// A float64 tensor of the matrix's elements. `shape` has as many elements as the matrix.
Tensor to_tensor(const MatrixView& matrix, Shape shape);

/// A float64 tensor seen as [rows, cols], without a copy.
Eigen::Map<const Matrix> as_matrix(const Tensor& float64, std::int64_t rows, std::int64_t cols);

/// [rows, heads*head_dim] seen as [rows*heads, head_dim], without a copy.
Eigen::Map<Matrix> by_head(Matrix& x, std::int64_t head_dim);

}  // namespace attn::reference
