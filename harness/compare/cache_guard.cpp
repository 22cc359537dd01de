#include "harness/compare/cache_guard.h"

#include <cstring>
#include <vector>

namespace attn::harness {
namespace {

/// One slot's row of all heads, in bytes of the pool.
std::size_t slot_bytes(const Tensor& pool) {
  return static_cast<std::size_t>(pool.dim(3) * pool.dim(4)) * element_size(pool.type());
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

/// First slot outside the call that changed.
std::string changed_slot(const Case& c, const Tensor& before, const Tensor& after) {
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
          return describe_slot(cache, page, layer, slot) +
                 " changed, which the call must not write";
        }
      }
    }
  }
  return "";
}

/// First new slot that does not hold the stage's row.
std::string wrong_new_slot(const Case& c, const KvCache& after, const Tensor& pool, bool keys,
                           const Tensor& logical) {
  const std::int64_t width = pool.dim(3) * pool.dim(4);
  std::vector<double> stored(static_cast<std::size_t>(width)), stage(stored);
  std::int64_t key = 0;
  for (std::int64_t b = 0; b < c.batch(); key += c.key_count(b), ++b) {
    for (std::int64_t p = c.cached(b); p < c.key_count(b); ++p) {
      pool.values(keys ? after.k_index(b, p) : after.v_index(b, p), stored);
      logical.values((key + p) * width, stage);
      for (std::size_t i = 0; i < stored.size(); ++i) {
        const double want = round_to(pool.type(), stage[i]);
        if (stored[i] == want || (stored[i] != stored[i] && want != want)) continue;
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
  std::string violation = changed_slot(c, before, pool);
  if (violation.empty() && logical != nullptr && !c.config.starts_at_attention()) {
    violation = wrong_new_slot(c, after, pool, keys, *logical);
  }
  return violation;
}

}  // namespace attn::harness
