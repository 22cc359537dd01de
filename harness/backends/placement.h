#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "reference/core/memory_layout.h"
#include "reference/core/tensor.h"

namespace attn::harness {

/// Where the elements of a tensor lie in its allocation. Numbers count elements.
struct Placement {
  Shape shape;
  Shape strides;
  std::int64_t offset = 0;  ///< of element (0, 0, ...) from the allocation's start
  std::int64_t extent = 0;  ///< of the allocation

  /// Every element of the allocation is one of the tensor, in row-major order.
  bool is_dense() const;
};

Placement dense_placement(Shape shape);

/// Elements that lie one after the other in both the dense tensor and the allocation.
struct Run {
  std::int64_t first = 0;  ///< in the dense tensor
  std::int64_t at = 0;     ///< in the allocation
  std::int64_t count = 0;
};
/// The tensor as runs, in the dense tensor's order.
std::vector<Run> runs_of(const Placement& placement);

/// Which part of a fused row [q heads, k heads, v heads] a tensor is: elements before and after it.
struct RowPart {
  std::int64_t before = 0;
  std::int64_t after = 0;
};

/// [tokens, heads, channels], or [tokens, channels] as one head: gap, channel stride, row stride
/// and offset of the layout, heads outermost or not.
Placement place_rows(const MemoryLayout& layout, const Shape& shape, bool heads_outermost,
                     RowPart part);

/// [rows, columns]: gap and offset of the layout, and stride 0 for equal rows.
Placement place_table(const MemoryLayout& layout, const Shape& shape, bool equal_rows);

/// Axes of K and V pools [pages, layers, slots, heads, channels].
struct PoolShape {
  std::int64_t pages = 0, layers = 0, slots = 0, heads = 0;
  std::int64_t channels_k = 0, channels_v = 0;
};
struct PoolPlacement {
  Placement k, v;  ///< of the live pages, in an allocation that begins with the dead ones
  std::int64_t dead_pages = 0;  ///< that many times the page stride lie before the live ones
  bool shared = false;          ///< one allocation
};
/// `equal_k`, `equal_v`: the heads hold equal values and may have stride 0.
PoolPlacement place_pools(const MemoryLayout& layout, const PoolShape& shape, bool equal_k,
                          bool equal_v);
/// Scales [pages, layers, slots, heads] of a pool with so many dead pages.
Placement place_scales(const MemoryLayout& layout, const PoolShape& shape, std::int64_t dead_pages,
                       bool equal_heads);

/// Whether the values are equal, bit for bit, along an axis.
bool is_equal_along(const Tensor& tensor, std::size_t axis);

}  // namespace attn::harness
