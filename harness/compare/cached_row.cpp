#include "harness/compare/cached_row.h"

namespace attn::harness {

double cached_scale(const KvCache& cache, bool keys, std::int64_t b, std::int64_t p,
                    std::int64_t head) {
  const Tensor& scale = keys ? cache.k_scale : cache.v_scale;
  return scale.empty() ? 1.0 : scale.value(cache.scale_index(scale, cache.slot(b, p), head));
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
