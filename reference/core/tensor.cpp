#include "reference/core/tensor.h"

#include <cstring>
#include <limits>

#include "reference/core/error.h"

namespace attn {

std::int64_t num_elements(const Shape& shape) {
  std::int64_t product = 1;
  bool overflows = false;
  for (const std::int64_t n : shape) {
    if (n < 0) {
      throw Error(ErrorKind::kInput, "shape " + to_string(shape) +
                                         " has a negative axis; every axis must be 0 or more");
    }
    if (n == 0) return 0;
  }
  for (const std::int64_t n : shape) {
    overflows = overflows || product > std::numeric_limits<std::int64_t>::max() / n;
    if (!overflows) product *= n;
  }
  if (overflows) {
    throw Error(ErrorKind::kInput, "shape " + to_string(shape) +
                                       " has more than 2^63 - 1 elements; use a smaller shape");
  }
  return product;
}

std::string to_string(const Shape& shape) {
  std::string text = "[";
  for (const std::int64_t n : shape) {
    text += (text.size() > 1 ? ", " : "") + std::to_string(n);
  }
  return text + "]";
}

namespace {

std::uint64_t load(const std::byte* bytes, std::size_t size) {
  std::uint64_t code = 0;
  std::memcpy(&code, bytes, size);
  return code;
}

std::size_t byte_count(ElementType type, const Shape& shape) {
  const auto count = static_cast<std::uint64_t>(num_elements(shape));
  const std::uint64_t size = element_size(type);
  if (count > static_cast<std::uint64_t>(std::numeric_limits<std::ptrdiff_t>::max()) / size) {
    throw Error(ErrorKind::kInput, "shape " + to_string(shape) + " of " +
                                       std::string(element_name(type)) +
                                       " does not fit into memory; use a smaller shape");
  }
  return count * size;
}

}  // namespace

double TensorView::value(std::span<const std::int64_t> index) const {
  if (index.size() != shape.size() || strides.size() != shape.size()) {
    throw Error(ErrorKind::kInternal, "an index of " + std::to_string(index.size()) +
                                          " axes does not fit shape " + to_string(shape));
  }
  std::int64_t flat = 0;
  for (std::size_t axis = 0; axis < index.size(); ++axis) flat += index[axis] * strides[axis];
  const std::size_t size = element_size(type);
  return decode(type, load(data + flat * static_cast<std::int64_t>(size), size));
}

Tensor::Tensor(ElementType type, Shape shape)
    : type_(type),
      present_(true),
      shape_(std::move(shape)),
      size_(num_elements(shape_)),
      bytes_(byte_count(type, shape_)) {}

Tensor Tensor::from_values(ElementType type, Shape shape, std::span<const double> values) {
  Tensor tensor(type, std::move(shape));
  if (static_cast<std::uint64_t>(tensor.size_) != values.size()) {
    throw Error(ErrorKind::kInternal, std::to_string(values.size()) + " values do not fill shape " +
                                          to_string(tensor.shape_));
  }
  encode_all(type, values, tensor.data());
  return tensor;
}

Tensor Tensor::scalar(ElementType type, double value) {
  return from_values(type, {}, std::span<const double>(&value, 1));
}

std::uint64_t Tensor::code(std::int64_t flat) const {
  const std::size_t size = element_size(type_);
  return load(bytes_.data() + static_cast<std::size_t>(flat) * size, size);
}

void Tensor::set_code(std::int64_t flat, std::uint64_t code) {
  const std::size_t size = element_size(type_);
  std::memcpy(bytes_.data() + static_cast<std::size_t>(flat) * size, &code, size);
}

std::vector<double> Tensor::values() const {
  std::vector<double> out(static_cast<std::size_t>(size_));
  decode_all(type_, bytes_.data(), out);
  return out;
}

void Tensor::values(std::int64_t first, std::span<double> out) const {
  if (first < 0 || first > size_ || out.size() > static_cast<std::size_t>(size_ - first)) {
    throw Error(ErrorKind::kInternal, "elements " + std::to_string(first) + " .. +" +
                                          std::to_string(out.size()) + " are outside of shape " +
                                          to_string(shape_));
  }
  decode_all(type_, bytes_.data() + static_cast<std::size_t>(first) * element_size(type_), out);
}

TensorView Tensor::view() const {
  Shape strides(shape_.size());
  std::int64_t stride = 1;
  for (std::size_t axis = shape_.size(); axis-- > 0;) {
    strides[axis] = stride;
    stride *= shape_[axis];
  }
  return {bytes_.data(), type_, shape_, std::move(strides)};
}

}  // namespace attn
