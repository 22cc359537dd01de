#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "reference/core/element.h"

namespace attn {

/// Axis lengths, outermost first. Empty for a scalar.
using Shape = std::vector<std::int64_t>;

/// Product of the axis lengths (1 for a scalar). Throws Error(kInput) when it overflows int64.
std::int64_t num_elements(const Shape& shape);

/// "[4, 16, 128]"; "[]" for a scalar.
std::string to_string(const Shape& shape);

/// Non-owning view: element (i0, i1, ...) is at data + sum(i_k * strides[k]) * element_size(type).
/// Strides count elements and may be zero (broadcast) or leave gaps.
struct TensorView {
  const std::byte* data = nullptr;
  ElementType type = ElementType::kFloat32;
  Shape shape;
  Shape strides;

  double value(std::span<const std::int64_t> index) const;
};

/// Owning, dense, row-major buffer. A default-constructed tensor is absent: empty() is true.
class Tensor {
 public:
  Tensor() = default;
  /// Zero-filled (all bytes zero).
  Tensor(ElementType type, Shape shape);

  /// Encodes `values` (row-major) to `type`.
  static Tensor from_values(ElementType type, Shape shape, std::span<const double> values);
  static Tensor scalar(ElementType type, double value);

  bool empty() const { return !present_; }
  ElementType type() const { return type_; }
  const Shape& shape() const { return shape_; }
  std::int64_t dim(std::size_t axis) const { return shape_.at(axis); }
  std::int64_t size() const { return size_; }

  std::byte* data() { return bytes_.data(); }
  const std::byte* data() const { return bytes_.data(); }
  std::span<std::byte> bytes() { return bytes_; }
  std::span<const std::byte> bytes() const { return bytes_; }

  /// The buffer as T; the caller makes sure that T is the storage type of type().
  template <typename T>
  T* as() {
    return reinterpret_cast<T*>(bytes_.data());
  }
  template <typename T>
  const T* as() const {
    return reinterpret_cast<const T*>(bytes_.data());
  }

  std::uint64_t code(std::int64_t flat) const;
  void set_code(std::int64_t flat, std::uint64_t code);
  double value(std::int64_t flat) const { return decode(type_, code(flat)); }
  void set_value(std::int64_t flat, double v) { set_code(flat, encode(type_, v)); }

  /// All elements decoded, row-major.
  std::vector<double> values() const;
  /// `count` elements decoded, from flat index `first`, into `out`.
  void values(std::int64_t first, std::span<double> out) const;

  TensorView view() const;

  friend bool operator==(const Tensor& a, const Tensor& b) = default;

 private:
  ElementType type_ = ElementType::kFloat32;
  bool present_ = false;
  Shape shape_;
  std::int64_t size_ = 0;
  std::vector<std::byte> bytes_;
};

}  // namespace attn
