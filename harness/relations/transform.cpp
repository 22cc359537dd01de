#include "harness/relations/transform.h"

#include <algorithm>
#include <cstring>
#include <numeric>

namespace attn::harness {
namespace {

std::size_t to_size(std::int64_t n) { return static_cast<std::size_t>(n); }

std::vector<std::int64_t> count_up(std::int64_t n) {
  std::vector<std::int64_t> numbers(to_size(n));
  std::iota(numbers.begin(), numbers.end(), 0);
  return numbers;
}

}  // namespace

Tensor gather(const Tensor& t, std::size_t axis, std::span<const std::int64_t> index) {
  if (t.empty()) return t;
  Shape shape = t.shape();
  const std::int64_t axis_length = shape[axis];
  std::int64_t outer = 1, inner = 1;
  for (std::size_t i = 0; i < axis; ++i) outer *= shape[i];
  for (std::size_t i = axis + 1; i < shape.size(); ++i) inner *= shape[i];
  shape[axis] = std::ssize(index);
  Tensor result(t.type(), shape);
  if (result.size() == 0) return result;
  const std::size_t slice = t.bytes().size() / to_size(outer * axis_length);
  std::byte* to = result.data();
  for (std::int64_t o = 0; o < outer; ++o) {
    for (const std::int64_t i : index) {
      std::memcpy(to, t.data() + to_size(o * axis_length + i) * slice, slice);
      to += slice;
    }
  }
  return result;
}

Part whole_sequence(const Case& c, std::int64_t b) { return {b, 0, c.row_count(b), c.cached(b)}; }

Case take(const Case& c, std::span<const Part> parts) {
  Case result = c;
  std::vector<std::int64_t> rows, sequences;
  const std::int64_t batch = std::ssize(parts);
  result.input_row_offsets = Tensor(ElementType::kUInt32, {batch + 1});
  result.cache_lengths = Tensor(ElementType::kUInt32, {batch});
  for (std::int64_t b = 0; b < batch; ++b) {
    const Part& part = parts[to_size(b)];
    sequences.push_back(part.sequence);
    for (std::int64_t i = 0; i < part.count; ++i) {
      rows.push_back(c.row_begin(part.sequence) + part.first + i);
    }
    result.input_row_offsets.as<std::uint32_t>()[b + 1] = static_cast<std::uint32_t>(rows.size());
    result.cache_lengths.as<std::uint32_t>()[b] = static_cast<std::uint32_t>(part.length);
  }
  result.x = gather(c.x, 0, rows);
  result.q = gather(c.q, 0, rows);
  result.cache.page_table = gather(c.cache.page_table, 0, sequences);
  if (!c.mask.empty()) {
    std::int64_t longest = 0;
    for (std::int64_t b = 0; b < batch; ++b) longest = std::max(longest, result.key_count(b));
    result.mask = gather(gather(c.mask, 0, rows), 1, count_up(longest));
  }
  return result;
}

Case reverse_pages(const Case& c) {
  Case result = c;
  const std::int64_t pages = c.cache.num_pages();
  std::vector<std::int64_t> order = count_up(pages);
  std::ranges::reverse(order);
  result.cache.k = gather(c.cache.k, 0, order);
  result.cache.v = gather(c.cache.v, 0, order);
  if (c.config.kv_cache.scale_granularity == ScaleGranularity::kTokenHead) {
    result.cache.k_scale = gather(c.cache.k_scale, 0, order);
    result.cache.v_scale = gather(c.cache.v_scale, 0, order);
  }
  auto* const table = result.cache.page_table.as<std::uint32_t>();
  for (std::int64_t i = 0; i < result.cache.page_table.size(); ++i) {
    if (table[i] < pages) table[i] = static_cast<std::uint32_t>(pages - 1 - table[i]);
  }
  return result;
}

Case with_mask(const Case& c, const MaskConfig& mask) {
  Case result = c;
  result.config.mask = mask;
  result.mask = Tensor();
  return result;
}

}  // namespace attn::harness
