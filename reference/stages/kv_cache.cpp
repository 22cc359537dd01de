#include "reference/stages/kv_cache.h"

#include <cstddef>
#include <span>

#include "reference/core/trace.h"
#include "reference/formats/block_scale.h"

namespace attn::reference {
namespace {

/// The scale of a new row of one head, for a cache with a scale per token and head.
double token_scale(const RowView& values, ElementType type) {
  const double scale =
      round_to(ElementType::kFloat32, largest_magnitude(values) / max_finite(type));
  return scale == 0.0 ? 1.0 : scale;
}

/// Encodes x [heads*width], one row, into slot `slot` of `pool`, and its scales into `scale` where
/// they are per token. `scale` is absent for a cache without.
void put_row(const KvCache& cache, Tensor& pool, Tensor& scale, std::int64_t slot, const RowView& x,
             Rounding r) {
  const std::int64_t heads = pool.dim(3);
  const std::int64_t width = pool.dim(4);
  for (std::int64_t h = 0; h < heads; ++h) {
    Eigen::RowVectorXd values = x.segment(h * width, width);
    if (!scale.empty()) {
      const std::int64_t at = cache.scale_index(scale, slot, h);
      if (scale.shape().size() == 4) {
        scale.set_value(at, token_scale(values, pool.type()));
      }
      const double s = scale.value(at);
      values = values.unaryExpr([&](double v) { return r.to(ElementType::kFloat32, v / s); });
    }
    const std::size_t first = static_cast<std::size_t>((slot * heads + h) * width);
    encode_all(pool.type(), std::span<const double>(values.data(), static_cast<std::size_t>(width)),
               pool.data() + first * element_size(pool.type()));
  }
}

/// Overwrites the last rows of each sequence of `logical` [keys, width] by its rows of x [tokens,
/// width].
void put_new_rows(const Case& c, Tensor& logical, const MatrixView& x) {
  Eigen::Map<Matrix> all(logical.as<double>(), c.total_keys(), x.cols());
  std::int64_t end = 0;
  for (std::int64_t b = 0; b < c.batch(); ++b) {
    end += c.key_count(b);
    const std::int64_t n = c.row_count(b);
    all.middleRows(end - n, n) = x.middleRows(c.row_begin(b), n);
  }
}

}  // namespace

KvCache store(const Case& c, const MatrixView& k, const MatrixView& v, Rounding r) {
  KvCache cache = c.cache;
  for (std::int64_t b = 0; b < c.batch(); ++b) {
    for (std::int64_t i = 0; i < c.row_count(b); ++i) {
      const std::int64_t slot = cache.slot(b, c.cached(b) + i);
      const std::int64_t row = c.row_begin(b) + i;
      put_row(cache, cache.k, cache.k_scale, slot, k.row(row), r);
      put_row(cache, cache.v, cache.v_scale, slot, v.row(row), r);
    }
  }
  return cache;
}

LogicalCache read_cache(const Case& c, const KvCache& cache, Rounding r) {
  LogicalCache logical{logical_keys(c, cache), logical_values(c, cache)};
  for (Tensor* values : {&logical.k, &logical.v}) {
    for (double& v : std::span(values->as<double>(), static_cast<std::size_t>(values->size()))) {
      v = r.to(ElementType::kFloat32, v);
    }
  }
  return logical;
}

LogicalCache read_back(const Case& c, const KvCache& after, const MatrixView& k,
                       const MatrixView& v, Rounding r) {
  LogicalCache logical = read_cache(c, after, r);
  if (r.exact() && c.config.kv_cache.dtype != ElementType::kFloat8E4M3FN) {
    put_new_rows(c, logical.k, k);
    put_new_rows(c, logical.v, v);
  }
  return logical;
}

}  // namespace attn::reference
