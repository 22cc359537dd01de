#include "reference/core/paging.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>
#include <vector>

#include "reference/core/error.h"
#include "reference/core/philox.h"

namespace attn {
namespace {

/// A tensor whose every element is NaN (or the type's substitute), to show reads of unused slots.
Tensor poisoned(ElementType type, Shape shape) {
  Tensor tensor(type, std::move(shape));
  const std::uint64_t nan = encode(type, std::numeric_limits<double>::quiet_NaN());
  const std::size_t size = element_size(type);
  const std::span<std::byte> bytes = tensor.bytes();
  if (bytes.empty()) return tensor;
  tensor.set_code(0, nan);
  // Doubling copies of what is already filled.
  for (std::size_t filled = size; filled < bytes.size(); filled *= 2) {
    std::memcpy(bytes.data() + filled, bytes.data(), std::min(filled, bytes.size() - filled));
  }
  return tensor;
}

/// Pages 0 .. n-1 in the order in which sequences take them: as they come or at random
/// (Fisher-Yates), with the spare pages among them or before them.
std::vector<std::int64_t> page_order(std::int64_t n, const PagingOptions& options) {
  const std::int64_t first = options.spares_first ? options.spare_pages : 0;
  std::vector<std::int64_t> order(static_cast<std::size_t>(n - first));
  std::iota(order.begin(), order.end(), first);
  if (!options.shuffled) return order;
  const RandomStream random(options.seed, "pages");
  for (std::size_t i = order.size(); i > 1; --i) {
    std::swap(order[i - 1], order[random.below(i, i)]);
  }
  return order;
}

/// Copies the dense rows [sum(lengths), ...] to their slots in `pool` [pages, layers, page_size,
/// ...].
void scatter(const Tensor& dense, const KvCache& cache, std::span<const std::int64_t> lengths,
             Tensor& pool) {
  const std::int64_t slots = cache.num_pages() * cache.num_layers * cache.page_size;
  if (slots == 0 || dense.empty() || dense.size() == 0) return;
  const std::size_t row_bytes = pool.bytes().size() / static_cast<std::size_t>(slots);
  const std::byte* source = dense.data();
  for (std::size_t b = 0; b < lengths.size(); ++b) {
    for (std::int64_t p = 0; p < lengths[b]; ++p, source += row_bytes) {
      const std::int64_t slot = cache.slot(static_cast<std::int64_t>(b), p);
      std::memcpy(pool.data() + static_cast<std::size_t>(slot) * row_bytes, source, row_bytes);
    }
  }
}

void check_dense(const char* name, const Tensor& dense, ElementType type, const Shape& shape) {
  if (dense.empty() && num_elements(shape) == 0) return;
  if (!dense.empty() && dense.type() == type && dense.shape() == shape) return;
  const std::string found =
      dense.empty() ? "missing"
                    : std::string(element_name(dense.type())) + " " + to_string(dense.shape());
  throw Error(ErrorKind::kConfig,
              std::string(name) + " is " + found + "; the config and the lengths need " +
                  std::string(element_name(type)) + " " + to_string(shape),
              name);
}

void check_options(const PagingOptions& options, std::span<const std::int64_t> lengths,
                   std::span<const std::int64_t> capacity, std::int64_t page_size) {
  const bool layer_exists = options.layer >= 0 && options.layer < options.num_layers;
  bool fits = lengths.size() == capacity.size();
  for (std::size_t b = 0; fits && b < lengths.size(); ++b) {
    fits = lengths[b] >= 0 && lengths[b] <= capacity[b];
  }
  if (!layer_exists || !fits || page_size < 1 || options.spare_pages < 0) {
    throw Error(
        ErrorKind::kConfig,
        "layer " + std::to_string(options.layer) + " of " + std::to_string(options.num_layers) +
            " layers, page_size " + std::to_string(page_size) + ", " +
            std::to_string(options.spare_pages) +
            " spare pages: need 0 <= layer < layers, page_size >= 1, spare pages >= 0 and a "
            "capacity of at least its length for each sequence",
        "kv_cache");
  }
}

/// Lays out one scale: per token it is scattered like the values, otherwise it is kept.
Tensor paged_scale(const char* name, const AttentionConfig& config, const Tensor& scale,
                   const KvCache& cache, std::span<const std::int64_t> lengths,
                   std::int64_t total) {
  const std::int64_t heads = config.num_key_value_heads;
  switch (config.kv_cache.scale_granularity) {
    case ScaleGranularity::kNone:
      return {};
    case ScaleGranularity::kTensor:
      check_dense(name, scale, ElementType::kFloat32, {});
      return scale;
    case ScaleGranularity::kHead:
      check_dense(name, scale, ElementType::kFloat32, {heads});
      return scale;
    case ScaleGranularity::kTokenHead:
      break;
  }
  check_dense(name, scale, ElementType::kFloat32, {total, heads});
  Tensor pool = poisoned(ElementType::kFloat32,
                         {cache.num_pages(), cache.num_layers, cache.page_size, heads});
  scatter(scale, cache, lengths, pool);
  return pool;
}

}  // namespace

KvCache make_paged_cache(const AttentionConfig& config, const Tensor& dense_k,
                         const Tensor& dense_v, const Tensor& k_scale, const Tensor& v_scale,
                         std::span<const std::int64_t> lengths,
                         std::span<const std::int64_t> capacity, const PagingOptions& options) {
  const std::int64_t page_size = config.kv_cache.page_size;
  const std::int64_t heads = config.num_key_value_heads;
  const ElementType type = config.kv_cache.dtype;
  check_options(options, lengths, capacity, page_size);
  const std::int64_t total = std::accumulate(lengths.begin(), lengths.end(), std::int64_t{0});
  check_dense("cache/k", dense_k, type, {total, heads, config.head_dim});
  check_dense("cache/v", dense_v, type, {total, heads, config.head_dim_v});

  std::int64_t owned = 0;
  std::int64_t columns = 1;
  for (const std::int64_t n : capacity) {
    const std::int64_t pages = (n + page_size - 1) / page_size;
    owned += pages;
    columns = std::max(columns, pages);
  }
  const std::int64_t num_pages = owned + options.spare_pages;
  const auto batch = static_cast<std::int64_t>(lengths.size());

  KvCache cache;
  cache.page_size = page_size;
  cache.num_layers = options.num_layers;
  cache.layer = options.layer;
  cache.page_table = Tensor(ElementType::kUInt32, {batch, columns});
  const std::vector<std::int64_t> order = page_order(num_pages, options);
  std::size_t next = 0;
  for (std::int64_t b = 0; b < batch; ++b) {
    const std::int64_t pages = (capacity[static_cast<std::size_t>(b)] + page_size - 1) / page_size;
    for (std::int64_t j = 0; j < columns; ++j) {
      const std::int64_t page = j < pages ? order[next++] : num_pages;
      cache.page_table.set_code(b * columns + j, static_cast<std::uint64_t>(page));
    }
  }
  cache.k = poisoned(type, {num_pages, options.num_layers, page_size, heads, config.head_dim});
  cache.v = poisoned(type, {num_pages, options.num_layers, page_size, heads, config.head_dim_v});
  scatter(dense_k, cache, lengths, cache.k);
  scatter(dense_v, cache, lengths, cache.v);
  cache.k_scale = paged_scale("cache/k_scale", config, k_scale, cache, lengths, total);
  cache.v_scale = paged_scale("cache/v_scale", config, v_scale, cache, lengths, total);
  return cache;
}

}  // namespace attn
