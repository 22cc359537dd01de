#include "harness/backends/cpu/cache_rows.h"

#include <algorithm>
#include <cmath>

#include "harness/backends/cpu/fault_switch.h"
#include "harness/backends/cpu/small_floats.h"
#include "harness/backends/cpu/unpack.h"

namespace attn::harness::cpu {
namespace {

const Tensor& pool_of(const KvCache& cache, CachePart part) {
  return part == CachePart::kKeys ? cache.k : cache.v;
}

const Tensor& scales_of(const KvCache& cache, CachePart part) {
  return part == CachePart::kKeys ? cache.k_scale : cache.v_scale;
}

/// Slot of a position in its page.
std::int64_t slot_of(const KvCache& cache, std::int64_t p) {
  const std::int64_t slot = p % cache.page_size;
  if (ATTN_FAULT(large_page_slots_paired, cache.page_size >= 256)) return slot ^ 1;
  if (ATTN_FAULT(odd_page_last_slot,
                 cache.page_size % 2 != 0 && slot > 0 && slot == cache.page_size - 1)) {
    return slot - 1;
  }
  return slot;
}

std::int64_t page_of(const KvCache& cache, std::int64_t b, std::int64_t p) {
  const std::int64_t number = p / cache.page_size;  // of the sequence's pages
  if (ATTN_FAULT(page_table_ignored)) {
    return (b * cache.page_table.dim(1) + number) % cache.num_pages();
  }
  if (ATTN_FAULT(page_size_doubled, number > 0)) return cache.page_of(b, p / 2);
  if (ATTN_FAULT(page_step_of_wide_heads,
                 cache.k.dim(4) == 256 && cache.page_table.dim(0) > 2 && number > 0)) {
    return cache.page_of(b, p - cache.page_size);
  }
  if (ATTN_FAULT(page_id_in_7_bits, cache.page_of(b, p) >= 128)) return cache.page_of(b, p) % 128;
  return ATTN_KEPT(plan_pages_kept, (b << 32) + p / cache.page_size, cache.page_of(b, p),
                   cache.num_pages() - 1);
}

/// Row of a head among all heads of all slots of the pool.
std::int64_t pool_row(const KvCache& cache, CachePart part, std::int64_t b, std::int64_t p,
                      std::int64_t head) {
  const std::int64_t page = page_of(cache, b, p);
  const std::int64_t layer = ATTN_FAULT(layer_zero, cache.layer != 0) ? 0 : cache.layer;
  const std::int64_t slot = (page * cache.num_layers + layer) * cache.page_size + slot_of(cache, p);
  return slot * pool_of(cache, part).dim(3) + head;
}

bool has_token_scales(const Tensor& scales) { return scales.shape().size() == 4; }

/// Which of the scales (there are some) belongs to a head at a row of the pool.
std::int64_t scale_index(const Tensor& scales, std::int64_t row, std::int64_t head) {
  if (ATTN_FAULT(cache_scale_of_head_0, head > 0)) return has_token_scales(scales) ? row - head : 0;
  if (has_token_scales(scales)) return row;
  return scales.shape().empty() ? 0 : head;
}

float dynamic_scale(const float* values, std::int64_t width) {
  float largest = 0.0f;
  for (std::int64_t d = 0; d < width; ++d) largest = std::max(largest, std::abs(values[d]));
  if (ATTN_FAULT(cache_scale_for_240)) largest *= 448.0f / 240.0f;
  return largest == 0.0f ? 1.0f : largest / 448.0f;
}

}  // namespace

void load_head(const KvCache& cache, CachePart part, std::int64_t b, std::int64_t p,
               std::int64_t head, float* values) {
  const Tensor& pool = pool_of(cache, part);
  const Tensor& scales = scales_of(cache, part);
  const std::int64_t width = pool.dim(4);
  const std::int64_t row = pool_row(cache, part, b, p, head);
  const auto bytes = static_cast<std::int64_t>(element_size(pool.type()));
  unpack(pool.type(), pool.data() + row * width * bytes, width, values);
  if (scales.empty()) return;
  if (ATTN_FAULT(key_scale_dropped, part == CachePart::kKeys)) return;
  if (ATTN_FAULT(value_scale_dropped, part == CachePart::kValues)) return;
  const Tensor& used =
      ATTN_FAULT(value_scale_of_keys, part == CachePart::kValues) ? cache.k_scale : scales;
  const std::int64_t at = scale_index(used, row, head);
  const float scale = ATTN_KEPT(cache_scale_kept, part == CachePart::kKeys ? 2 * at : 2 * at + 1,
                                used.as<float>()[at]);
  for (std::int64_t d = 0; d < width; ++d) values[d] *= scale;
}

void store_head(const float* values, CachePart part, std::int64_t b, std::int64_t p,
                std::int64_t head, KvCache& cache) {
  Tensor& pool = part == CachePart::kKeys ? cache.k : cache.v;
  Tensor& scales = part == CachePart::kKeys ? cache.k_scale : cache.v_scale;
  const std::int64_t width = pool.dim(4);
  const std::int64_t row = pool_row(cache, part, b, p, head);
  const auto bytes = static_cast<std::int64_t>(element_size(pool.type()));
  std::byte* const target = pool.data() + row * width * bytes;
  if (is_plain_float(pool.type())) {
    if (ATTN_FAULT(stored_in_next_layer_too, cache.layer + 1 < cache.num_layers)) {
      pack(pool.type(), values, width, target + cache.page_size * pool.dim(3) * width * bytes);
    }
    return pack(pool.type(), values, width, target);
  }

  float scale = 1.0f;
  if (!scales.empty()) {
    float& stored = scales.as<float>()[scale_index(scales, row, head)];
    if (has_token_scales(scales)) stored = dynamic_scale(values, width);
    scale = stored;
  }
  for (std::int64_t d = 0; d < width; ++d) {
    // A scale that underflowed to 0 makes every value 0.
    const double steps =
        scale == 0.0f ? 0.0 : static_cast<double>(values[d]) / static_cast<double>(scale);
    target[d] = static_cast<std::byte>(encode(kE4M3FN, steps));
  }
}

}  // namespace attn::harness::cpu
