#include "harness/compare/cached_row.h"

namespace attn::harness {

double cached_scale(const KvCache& cache, bool keys, std::int64_t b, std::int64_t p,
                    std::int64_t head) {
  const Tensor& scale = keys ? cache.k_scale : cache.v_scale;
  if (scale.empty()) return 1.0;
  if (scale.shape().size() < 2) return scale.value(scale.size() == 1 ? 0 : head);
  // [num_pages, num_layers, page_size, num_kv_heads]: a row of k without its channels
  const std::int64_t row = cache.k.dim(3) * cache.k.dim(4);
  return scale.value(cache.k_index(b, p) / row * cache.k.dim(3) + head);
}

void read_cached(const KvCache& cache, bool keys, std::int64_t b, std::int64_t p, std::int64_t head,
                 std::span<double> out) {
  const Tensor& pool = keys ? cache.k : cache.v;
  const std::int64_t token = keys ? cache.k_index(b, p) : cache.v_index(b, p);
  pool.values(token + head * std::ssize(out), out);
  const double scale = cached_scale(cache, keys, b, p, head);
  for (double& value : out) value *= scale;
}

}  // namespace attn::harness
