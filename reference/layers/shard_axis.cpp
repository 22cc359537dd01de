#include "reference/layers/shard_axis.h"

#include <cstring>

namespace attn::reference {
namespace {

/// A tensor as [outer, items, item_bytes].
struct AxisLayout {
  std::size_t outer = 1;
  std::size_t items = 0;
  std::size_t item_bytes = 0;
};

AxisLayout layout_of(const Tensor& t, std::size_t axis) {
  AxisLayout layout{1, static_cast<std::size_t>(t.dim(axis)), element_size(t.type())};
  for (std::size_t i = 0; i < t.shape().size(); ++i) {
    const auto n = static_cast<std::size_t>(t.dim(i));
    if (i < axis) layout.outer *= n;
    if (i > axis) layout.item_bytes *= n;
  }
  return layout;
}

}  // namespace

Tensor take(const Tensor& stored, std::size_t axis, Range range) {
  Shape shape = stored.shape();
  shape[axis] = range.count;
  Tensor part(stored.type(), std::move(shape));
  const AxisLayout from = layout_of(stored, axis);
  const std::size_t skip = static_cast<std::size_t>(range.first) * from.item_bytes;
  const std::size_t bytes = static_cast<std::size_t>(range.count) * from.item_bytes;
  for (std::size_t i = 0; i < from.outer && bytes > 0; ++i) {
    std::memcpy(part.data() + i * bytes, stored.data() + i * from.items * from.item_bytes + skip,
                bytes);
  }
  return part;
}

void put(Tensor& whole, std::size_t axis, std::int64_t first, const Tensor& part) {
  const AxisLayout to = layout_of(whole, axis);
  const std::size_t skip = static_cast<std::size_t>(first) * to.item_bytes;
  const std::size_t bytes = static_cast<std::size_t>(part.dim(axis)) * to.item_bytes;
  for (std::size_t i = 0; i < to.outer && bytes > 0; ++i) {
    std::memcpy(whole.data() + i * to.items * to.item_bytes + skip, part.data() + i * bytes, bytes);
  }
}

}  // namespace attn::reference
