#include "harness/backends/placement.h"

#include <algorithm>
#include <cstring>

namespace attn::harness {
namespace {

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

/// Elements from the first to the last one of a row of channels, and the gap behind it.
std::int64_t row_extent(std::int64_t channels, std::int64_t channel_stride, std::int64_t gap) {
  return channels * channel_stride + gap;
}

/// An allocation that ends with the tensor's last element: what is read behind it is not ours.
void end_with_last_element(Placement& placement) {
  placement.extent = placement.offset + 1;
  for (std::size_t axis = 0; axis < placement.shape.size(); ++axis) {
    if (placement.shape[axis] == 0) {
      placement.extent = placement.offset;
      return;
    }
    placement.extent += (placement.shape[axis] - 1) * placement.strides[axis];
  }
}

/// Strides of a page's axes and what a page takes.
struct PageStrides {
  std::int64_t slot = 0, head = 0, extent = 0;
};
PageStrides page_strides(const MemoryLayout& layout, const PoolShape& shape, std::int64_t row,
                         bool equal_heads) {
  const std::int64_t heads = equal_heads ? 1 : shape.heads;
  PageStrides strides;
  const bool heads_first = layout.cache == CacheOrder::kHnd;
  strides.head = equal_heads ? 0 : heads_first ? row * shape.slots : row;
  strides.slot = heads_first ? row : row * heads;
  strides.extent = row * heads * shape.slots;
  return strides;
}

}  // namespace

bool Placement::is_dense() const {
  return offset == 0 && extent == num_elements(shape) && strides == dense_placement(shape).strides;
}

Placement dense_placement(Shape shape) {
  Placement placement;
  placement.strides.assign(shape.size(), 1);
  for (std::size_t i = shape.size(); i-- > 1;) {
    placement.strides[i - 1] = placement.strides[i] * shape[i];
  }
  placement.extent = num_elements(shape);
  placement.shape = std::move(shape);
  return placement;
}

std::vector<Run> runs_of(const Placement& placement) {
  const std::int64_t size = num_elements(placement.shape);
  if (size == 0) return {};
  if (placement.is_dense() || placement.shape.empty()) return {{0, placement.offset, size}};
  const std::size_t inner = placement.shape.size() - 1;
  const bool whole_rows = placement.strides[inner] == 1;
  const std::int64_t count = whole_rows ? placement.shape[inner] : 1;
  std::vector<Run> runs;
  runs.reserve(static_cast<std::size_t>(size / count));
  Shape index(placement.shape.size(), 0);
  for (std::int64_t first = 0; first < size; first += count) {
    std::int64_t at = placement.offset;
    for (std::size_t axis = 0; axis < index.size(); ++axis) {
      at += index[axis] * placement.strides[axis];
    }
    runs.push_back({first, at, count});
    index[inner] += count;
    for (std::size_t axis = inner; axis > 0 && index[axis] == placement.shape[axis]; --axis) {
      index[axis] = 0;
      ++index[axis - 1];
    }
  }
  return runs;
}

Placement place_rows(const MemoryLayout& layout, const Shape& shape, bool heads_outermost,
                     RowPart part) {
  const bool has_heads = shape.size() == 3;
  const std::int64_t tokens = shape[0], heads = has_heads ? shape[1] : 1, channels = shape.back();
  const std::int64_t head = row_extent(channels, layout.channel_stride, layout.gap);
  const std::int64_t row = (heads_outermost ? head : head * heads) + part.before + part.after;
  const std::int64_t token_stride = std::max(row, layout.row_stride);
  Placement placement;
  placement.shape = shape;
  placement.offset = layout.offset + part.before;
  const std::int64_t head_stride =
      heads_outermost ? std::max<std::int64_t>(tokens, 1) * token_stride : head;
  placement.strides = {token_stride, head_stride, layout.channel_stride};
  if (!has_heads) placement.strides = {token_stride, layout.channel_stride};
  end_with_last_element(placement);
  placement.extent += part.after;
  return placement;
}

Placement place_table(const MemoryLayout& layout, const Shape& shape, bool equal_rows) {
  const std::int64_t row = shape[1] + layout.gap;
  Placement placement;
  placement.shape = shape;
  placement.strides = {equal_rows ? 0 : row, 1};
  placement.offset = layout.offset;
  end_with_last_element(placement);
  return placement;
}

PoolPlacement place_pools(const MemoryLayout& layout, const PoolShape& shape, bool equal_k,
                          bool equal_v) {
  const bool in_rows = layout.kv == KvPairing::kRowPairs,
             in_pages = layout.kv == KvPairing::kPagePairs;
  // Rows of K and V that lie side by side have stride 0 together or not at all.
  if (in_rows) equal_k = equal_v = equal_k && equal_v;
  const std::int64_t row_k = row_extent(shape.channels_k, layout.channel_stride, layout.gap);
  const std::int64_t row_v = row_extent(shape.channels_v, layout.channel_stride, layout.gap);
  const PageStrides k = page_strides(layout, shape, in_rows ? row_k + row_v : row_k, equal_k);
  const PageStrides v = page_strides(layout, shape, in_rows ? row_k + row_v : row_v, equal_v);
  const std::int64_t layer_k = in_pages ? k.extent + v.extent : k.extent;
  const std::int64_t layer_v = in_pages ? k.extent + v.extent : v.extent;
  const std::int64_t page_k = layer_k * shape.layers, page_v = layer_v * shape.layers;

  PoolPlacement pools;
  pools.shared = in_rows || in_pages;
  const std::int64_t smaller = std::max<std::int64_t>(std::min(page_k, page_v), 1);
  pools.dead_pages = ceil_div(layout.pool_offset, smaller);
  pools.k.shape = {shape.pages, shape.layers, shape.slots, shape.heads, shape.channels_k};
  pools.v.shape = {shape.pages, shape.layers, shape.slots, shape.heads, shape.channels_v};
  pools.k.strides = {page_k, layer_k, k.slot, k.head, layout.channel_stride};
  pools.v.strides = {page_v, layer_v, v.slot, v.head, layout.channel_stride};
  pools.k.offset = layout.offset + pools.dead_pages * page_k;
  pools.v.offset = layout.offset + pools.dead_pages * page_v +
                   (in_rows    ? row_k
                    : in_pages ? k.extent
                               : 0);
  end_with_last_element(pools.k);
  end_with_last_element(pools.v);
  if (pools.shared) pools.k.extent = pools.v.extent = std::max(pools.k.extent, pools.v.extent);
  return pools;
}

Placement place_scales(const MemoryLayout& layout, const PoolShape& shape, std::int64_t dead_pages,
                       bool equal_heads) {
  const PageStrides strides = page_strides(layout, shape, 1 + layout.gap, equal_heads);
  const std::int64_t page = strides.extent * shape.layers;
  Placement placement;
  placement.shape = {shape.pages, shape.layers, shape.slots, shape.heads};
  placement.strides = {page, strides.extent, strides.slot, strides.head};
  placement.offset = layout.offset + dead_pages * page;
  end_with_last_element(placement);
  return placement;
}

bool is_equal_along(const Tensor& tensor, std::size_t axis) {
  std::size_t inner = element_size(tensor.type());
  for (std::size_t i = axis + 1; i < tensor.shape().size(); ++i) {
    inner *= static_cast<std::size_t>(tensor.dim(i));
  }
  const auto length = static_cast<std::size_t>(tensor.dim(axis));
  const std::size_t block = inner * length;
  const std::span<const std::byte> bytes = tensor.bytes();
  for (std::size_t at = 0; at + block <= bytes.size() && block > 0; at += block) {
    for (std::size_t i = 1; i < length; ++i) {
      if (std::memcmp(&bytes[at], &bytes[at + i * inner], inner) != 0) return false;
    }
  }
  return true;
}

}  // namespace attn::harness
