#include "reference/layers/rope_and_store.h"

#include <array>
#include <initializer_list>
#include <utility>
#include <vector>

#include "reference/layers/shard_axis.h"
#include "reference/stages/kv_cache.h"
#include "reference/stages/rope.h"

namespace attn::reference {
namespace {

/// A case of one sequence, b of `c`, whose one new row has position `position`, over `pool`.
Case one_row(const Case& c, std::int64_t b, std::int64_t position, KvCache pool) {
  const auto index = [](std::initializer_list<double> values) {
    return Tensor::from_values(ElementType::kUInt32, {static_cast<std::int64_t>(values.size())},
                               std::vector<double>(values));
  };
  Case one;
  one.config = c.config;
  one.input_row_offsets = index({0, 1});
  one.cache_lengths = index({static_cast<double>(position)});
  one.cache = std::move(pool);
  one.cache.page_table = take(c.cache.page_table, 0, {b, 1});
  return one;
}

}  // namespace

RotatedQueries rope_then_store(const Case& c, const MatrixView& q, const MatrixView& k,
                               const MatrixView& v, Rounding r) {
  const std::vector<std::int64_t> positions = row_positions(c);
  const Matrix rotated_k = rotate(c.config, c.freqs_cis, k, positions, r);
  return {rotate(c.config, c.freqs_cis, q, positions, r), store(c, rotated_k, v, r)};
}

RotatedQueries rope_and_store(const Case& c, const MatrixView& q, const MatrixView& k,
                              const MatrixView& v, Rounding r) {
  RotatedQueries out{Matrix(q.rows(), q.cols()), c.cache};
  for (std::int64_t b = 0; b < c.batch(); ++b) {
    for (std::int64_t i = 0; i < c.row_count(b); ++i) {
      const std::int64_t row = c.row_begin(b) + i;
      const std::array<std::int64_t, 1> position{c.cached(b) + i};
      out.q.row(row) = rotate(c.config, c.freqs_cis, q.row(row), position, r);
      const Matrix rotated_k = rotate(c.config, c.freqs_cis, k.row(row), position, r);
      const Case one = one_row(c, b, position[0], std::move(out.cache));
      out.cache = store(one, rotated_k, v.row(row), r);
    }
  }
  out.cache.page_table = c.cache.page_table;
  return out;
}

}  // namespace attn::reference
