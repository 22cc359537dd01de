#include "reference/stages/kv_cache.h"

#include <cstddef>
#include <span>

#include "reference/core/trace.h"

namespace attn::reference {
namespace {

/// Encodes one row of x into `pool` from flat element index `at` on.
void put_row(Tensor& pool, std::int64_t at, const MatrixView& x, std::int64_t row) {
  const std::span<const double> values(&x.coeffRef(row, 0), static_cast<std::size_t>(x.cols()));
  const std::size_t offset = static_cast<std::size_t>(at) * element_size(pool.type());
  encode_all(pool.type(), values, pool.data() + offset);
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

KvCache store(const Case& c, const MatrixView& k, const MatrixView& v) {
  KvCache cache = c.cache;
  for (std::int64_t b = 0; b < c.batch(); ++b) {
    for (std::int64_t i = 0; i < c.row_count(b); ++i) {
      const std::int64_t position = c.cached(b) + i;
      const std::int64_t row = c.row_begin(b) + i;
      put_row(cache.k, cache.k_index(b, position), k, row);
      put_row(cache.v, cache.v_index(b, position), v, row);
    }
  }
  return cache;
}

LogicalCache read_back(const Case& c, const KvCache& after, const MatrixView& k,
                       const MatrixView& v, Rounding r) {
  LogicalCache logical{logical_keys(c, after), logical_values(c, after)};
  if (r.exact()) {
    put_new_rows(c, logical.k, k);
    put_new_rows(c, logical.v, v);
  }
  return logical;
}

}  // namespace attn::reference
