#include "harness/relations/transform.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <set>

#include "reference/core/paging.h"

namespace attn::harness {
namespace {

std::size_t to_size(std::int64_t n) { return static_cast<std::size_t>(n); }

/// [n, heads, ...]: the rows `slots` of a pool [pages, layers, page_size, heads, ...].
Tensor rows_of_pool(const Tensor& pool, std::span<const std::int64_t> slots) {
  if (pool.empty()) return pool;
  Shape shape(pool.shape().begin() + 2, pool.shape().end());
  shape[0] = std::ssize(slots);
  Tensor rows(pool.type(), shape);
  const std::int64_t all = pool.dim(0) * pool.dim(1) * pool.dim(2);
  if (rows.size() == 0) return rows;
  const std::size_t bytes = pool.bytes().size() / to_size(all);
  for (std::size_t i = 0; i < slots.size(); ++i) {
    std::memcpy(rows.data() + i * bytes, pool.data() + to_size(slots[i]) * bytes, bytes);
  }
  return rows;
}

/// Rows of a projection's weight that belong to heads of `width` rows each.
std::vector<std::int64_t> head_rows(std::span<const std::int64_t> heads, std::int64_t width) {
  std::vector<std::int64_t> rows;
  for (const std::int64_t head : heads) {
    for (std::int64_t i = 0; i < width; ++i) rows.push_back(head * width + i);
  }
  return rows;
}

void append(std::vector<std::int64_t>& rows, const std::vector<std::int64_t>& more,
            std::int64_t first) {
  for (const std::int64_t row : more) rows.push_back(first + row);
}

}  // namespace

std::vector<std::int64_t> count_up(std::int64_t n) {
  std::vector<std::int64_t> numbers(to_size(n));
  std::iota(numbers.begin(), numbers.end(), 0);
  return numbers;
}

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

Case with_keys(const Case& c, std::span<const Range> keys) {
  Case result = c;
  std::vector<std::int64_t> slots, lengths;
  std::int64_t longest = 0;
  for (std::int64_t b = 0; b < c.batch(); ++b) {
    const Range& range = keys[to_size(b)];
    for (std::int64_t i = 0; i < range.count; ++i) {
      slots.push_back(c.cache.slot(b, range.first + i));
    }
    lengths.push_back(range.count);
    longest = std::max(longest, range.count);
    result.cache_lengths.as<std::uint32_t>()[b] = static_cast<std::uint32_t>(range.count);
  }
  const bool per_token = c.config.kv_cache.scale_granularity == ScaleGranularity::kTokenHead;
  const auto scales = [&](const Tensor& scale) {
    return per_token ? rows_of_pool(scale, slots) : scale;
  };
  PagingOptions paging;
  paging.num_layers = c.cache.num_layers;
  paging.layer = c.cache.layer;
  result.cache =
      make_paged_cache(c.config, rows_of_pool(c.cache.k, slots), rows_of_pool(c.cache.v, slots),
                       scales(c.cache.k_scale), scales(c.cache.v_scale), lengths, lengths, paging);
  if (c.mask.empty()) return result;
  result.mask = Tensor(ElementType::kFloat32, {c.tokens(), longest});
  for (std::int64_t b = 0; b < c.batch(); ++b) {
    for (std::int64_t row = c.row_begin(b); row < c.row_begin(b) + c.row_count(b); ++row) {
      for (std::int64_t i = 0; i < keys[to_size(b)].count; ++i) {
        const std::int64_t from = row * c.mask.dim(1) + keys[to_size(b)].first + i;
        result.mask.as<float>()[row * longest + i] = c.mask.as<float>()[from];
      }
    }
  }
  return result;
}

Case with_heads(const Case& c, const AttentionConfig& config, std::span<const std::int64_t> heads,
                std::span<const std::int64_t> kv_heads) {
  Case result = c;
  result.config = config;
  constexpr std::size_t kPoolHeads = 3;
  result.q = gather(c.q, 1, heads);
  result.cache.k = gather(c.cache.k, kPoolHeads, kv_heads);
  result.cache.v = gather(c.cache.v, kPoolHeads, kv_heads);
  for (Tensor KvCache::*scale : {&KvCache::k_scale, &KvCache::v_scale}) {
    Tensor& t = result.cache.*scale;
    if (t.empty() || t.shape().empty()) continue;  // one for all heads
    t = gather(t, t.shape().size() - 1, kv_heads);
  }
  const std::vector<std::int64_t> q = head_rows(heads, c.config.head_dim);
  const std::vector<std::int64_t> k = head_rows(kv_heads, c.config.head_dim);
  const std::vector<std::int64_t> v = head_rows(kv_heads, c.config.head_dim_v);
  std::vector<std::int64_t> stacked = q;
  append(stacked, k, c.config.q_width());
  append(stacked, v, c.config.q_width() + c.config.k_width());
  for (auto& [name, weight] : result.weights) {
    const bool rows = name.ends_with(".weight") || name.ends_with(".bias");
    if (name == "sinks") weight = gather(weight, 0, heads);
    if (!rows || name.find("norm") != std::string::npos) continue;
    if (name.starts_with("qkv_proj")) weight = gather(weight, 0, stacked);
    if (name.starts_with("q_proj")) weight = gather(weight, 0, q);
    if (name.starts_with("k_proj")) weight = gather(weight, 0, k);
    if (name.starts_with("v_proj")) weight = gather(weight, 0, v);
    if (name == "o_proj.weight") weight = gather(weight, 1, head_rows(heads, c.config.head_dim_v));
  }
  return result;
}

void for_each_slot(const Case& c, const std::function<void(std::int64_t slot)>& visit) {
  std::set<std::int64_t> slots;
  for (std::int64_t b = 0; b < c.batch(); ++b) {
    for (std::int64_t p = 0; p < c.cached(b); ++p) slots.insert(c.cache.slot(b, p));
  }
  for (const std::int64_t slot : slots) visit(slot);
}

}  // namespace attn::harness
