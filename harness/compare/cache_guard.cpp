#include "harness/compare/cache_guard.h"

#include <cstring>
#include <vector>

#include "harness/compare/cached_row.h"

namespace attn::harness {
namespace {

/// One slot's row of all heads, in bytes, of a pool [num_pages, num_layers, page_size, ...].
std::size_t slot_bytes(const Tensor& pool) {
  const std::int64_t slots = pool.dim(0) * pool.dim(1) * pool.dim(2);
  return slots == 0 ? 0 : pool.bytes().size() / static_cast<std::size_t>(slots);
}

/// Marks the slots of the case's layer that the call writes, [num_pages * page_size].
std::vector<bool> written_slots(const Case& c) {
  std::vector<bool> written(static_cast<std::size_t>(c.cache.num_pages() * c.cache.page_size),
                            false);
  if (c.config.starts_at_attention()) return written;
  for (std::int64_t b = 0; b < c.batch(); ++b) {
    for (std::int64_t p = c.cached(b); p < c.key_count(b); ++p) {
      const std::int64_t slot = c.cache.page_of(b, p) * c.cache.page_size + p % c.cache.page_size;
      written[static_cast<std::size_t>(slot)] = true;
    }
  }
  return written;
}

/// First slot outside the call whose `what` changed.
std::string changed_slot(const Case& c, const Tensor& before, const Tensor& after,
                         const std::string& what) {
  const KvCache& cache = c.cache;
  const std::vector<bool> written = written_slots(c);
  const std::size_t row = slot_bytes(before);
  const std::byte* a = before.data();
  const std::byte* b = after.data();
  for (std::int64_t page = 0; page < cache.num_pages(); ++page) {
    for (std::int64_t layer = 0; layer < cache.num_layers; ++layer) {
      for (std::int64_t slot = 0; slot < cache.page_size; ++slot, a += row, b += row) {
        if (layer == cache.layer &&
            written[static_cast<std::size_t>(page * cache.page_size + slot)]) {
          continue;
        }
        if (std::memcmp(a, b, row) != 0) {
          return describe_slot(cache, page, layer, slot) + what +
                 " changed, which the call must not write";
        }
      }
    }
  }
  return "";
}

/// The scales after the call: those of the cached tokens, or of all, must be as before.
std::string changed_scale(const Case& c, const Tensor& before, const Tensor& after) {
  if (after.shape() != before.shape() || after.type() != before.type()) {
    return "the scales of the paged cache came back as " + std::string(element_name(after.type())) +
           to_string(after.shape()) + ", not " + std::string(element_name(before.type())) +
           to_string(before.shape());
  }
  if (before.shape().size() == 4) return changed_slot(c, before, after, ": the scale");
  return after == before ? "" : "the scale of the paged cache changed";
}

/// First new slot that does not hold the stage's row.
std::string wrong_new_slot(const Case& c, const KvCache& after, const Tensor& pool, bool keys,
                           const Tensor& logical) {
  const std::int64_t heads = pool.dim(3), channels = pool.dim(4), width = heads * channels;
  const bool scaled = !(keys ? after.k_scale : after.v_scale).empty();
  std::vector<double> stored(static_cast<std::size_t>(width)), stage(stored);
  std::int64_t key = 0;
  for (std::int64_t b = 0; b < c.batch(); key += c.key_count(b), ++b) {
    for (std::int64_t p = c.cached(b); p < c.key_count(b); ++p) {
      for (std::int64_t h = 0; h < heads; ++h) {
        read_cached(after, keys, b, p, h,
                    std::span(stored).subspan(static_cast<std::size_t>(h * channels),
                                              static_cast<std::size_t>(channels)));
      }
      logical.values((key + p) * width, stage);
      for (std::size_t i = 0; i < stored.size(); ++i) {
        // The stage may hold more than the pool does, or a product of code and scale in float32.
        const double have = stored[i];
        const double want = scaled ? stage[i] : round_to(pool.type(), stage[i]);
        if (have == want || (have != have && want != want)) continue;
        if (scaled && round_to(ElementType::kFloat32, have) == want) continue;
        return describe_slot(after, after.page_of(b, p), after.layer, p % after.page_size) +
               " does not hold the row of " + std::string(keys ? "cache_k" : "cache_v");
      }
    }
  }
  return "";
}

}  // namespace

std::string describe_slot(const KvCache& cache, std::int64_t page, std::int64_t layer,
                          std::int64_t slot) {
  std::string where = "page " + std::to_string(page);
  if (cache.num_layers > 1) where += ", layer " + std::to_string(layer);
  return where + ", slot " + std::to_string(slot);
}

std::string cache_violation(const Case& c, const KvCache& after, bool keys, const Tensor* logical) {
  const Tensor& before = keys ? c.cache.k : c.cache.v;
  const Tensor& pool = keys ? after.k : after.v;
  if (pool.shape() != before.shape() || pool.type() != before.type()) {
    return "the paged cache came back as " + std::string(element_name(pool.type())) +
           to_string(pool.shape()) + ", not " + std::string(element_name(before.type())) +
           to_string(before.shape());
  }
  if (after.page_table != c.cache.page_table || after.page_size != c.cache.page_size ||
      after.layer != c.cache.layer || after.num_layers != c.cache.num_layers) {
    return "the page table changed";
  }
  std::string violation = changed_slot(c, before, pool, "");
  if (violation.empty() && !(keys ? c.cache.k_scale : c.cache.v_scale).empty()) {
    violation = changed_scale(c, keys ? c.cache.k_scale : c.cache.v_scale,
                              keys ? after.k_scale : after.v_scale);
  }
  if (violation.empty() && logical != nullptr && !c.config.starts_at_attention()) {
    violation = wrong_new_slot(c, after, pool, keys, *logical);
  }
  return violation;
}

}  // namespace attn::harness
