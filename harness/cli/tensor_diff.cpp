#include "harness/cli/tensor_diff.h"

#include <bit>
#include <cmath>
#include <limits>

#include "reference/core/error.h"

namespace attn::cli {
namespace {

double distance(double a, double b) {
  if (std::isnan(a) && std::isnan(b)) return 0.0;
  if (a == b) return 0.0;
  const double difference = std::abs(a - b);
  return std::isfinite(difference) ? difference : std::numeric_limits<double>::infinity();
}

}  // namespace

TensorDiff diff_tensors(const Tensor& a, const Tensor& b) {
  if (a.shape() != b.shape()) {
    throw Error(ErrorKind::kInternal, "diff_tensors: shapes " + to_string(a.shape()) + " and " +
                                          to_string(b.shape()) + " differ");
  }
  TensorDiff diff;
  diff.elements = a.size();
  const bool same_type = a.type() == b.type();
  for (std::int64_t i = 0; i < a.size(); ++i) {
    if (same_type && a.code(i) == b.code(i)) continue;
    const double value_a = a.value(i);
    const double value_b = b.value(i);
    if (!same_type &&
        (std::bit_cast<std::uint64_t>(value_a) == std::bit_cast<std::uint64_t>(value_b) ||
         (std::isnan(value_a) && std::isnan(value_b)))) {
      continue;
    }
    ++diff.differing;
    const double d = distance(value_a, value_b);
    if (diff.where < 0 || d > diff.largest) {
      diff.largest = d;
      diff.where = i;
      diff.a = value_a;
      diff.b = value_b;
    }
  }
  return diff;
}

std::string index_text(const Shape& shape, std::int64_t flat) {
  Shape index(shape.size());
  for (std::size_t axis = shape.size(); axis-- > 0;) {
    index[axis] = flat % shape[axis];
    flat /= shape[axis];
  }
  return to_string(index);
}

}  // namespace attn::cli
