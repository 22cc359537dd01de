#include "harness/compare/rows.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "reference/core/philox.h"

namespace attn::harness {
namespace {

/// Edges of one period that are checked at each end of a sequence; a random row finds the rest.
constexpr std::int64_t kEdgesPerEnd = 8;

/// Rows of sequence b at the last position before and the first position after each multiple of
/// `period`, up to kEdgesPerEnd multiples from either end.
void add_edges(const Case& c, std::int64_t b, std::int64_t period, std::set<std::int64_t>& rows) {
  if (period < 1) return;
  const std::int64_t n = c.row_count(b), first = c.query_position(b, 0);
  const std::int64_t low = (std::max<std::int64_t>(first, 0) + period - 1) / period;
  const std::int64_t high = (first + n) / period;
  const auto add_multiple = [&](std::int64_t multiple) {
    for (const std::int64_t position : {multiple * period - 1, multiple * period}) {
      const std::int64_t i = position - first;
      if (i >= 0 && i < n) rows.insert(c.row_begin(b) + i);
    }
  };
  for (std::int64_t k = 0; k < kEdgesPerEnd && low + k <= high; ++k) {
    add_multiple(low + k);
    add_multiple(high - k);
  }
}

void add_boundary_rows(const Case& c, std::int64_t block, std::set<std::int64_t>& rows) {
  const AttentionConfig& config = c.config;
  for (std::int64_t b = 0; b < c.batch(); ++b) {
    const std::int64_t n = c.row_count(b);
    if (n == 0) continue;
    rows.insert(c.row_begin(b));
    rows.insert(c.row_begin(b) + n - 1);
    add_edges(c, b, c.cache.page_size, rows);
    add_edges(c, b, block, rows);
    add_edges(c, b, config.mask.window_size.value_or(0), rows);
    add_edges(c, b, config.mask.chunk_size.value_or(0), rows);
    if (n > c.key_count(b)) {  // the first row that sees a key
      const std::int64_t i = -c.query_position(b, 0);
      for (const std::int64_t row : {i - 1, i}) {
        if (row >= 0 && row < n) rows.insert(c.row_begin(b) + row);
      }
    }
  }
}

}  // namespace

std::vector<std::int64_t> select_rows(const Case& c, const RowSelection& selection,
                                      std::int64_t block) {
  const std::int64_t total = c.tokens();
  if (selection.all || total <= selection.random_rows) {
    std::vector<std::int64_t> all(static_cast<std::size_t>(total));
    std::iota(all.begin(), all.end(), 0);
    return all;
  }
  std::set<std::int64_t> rows;
  add_boundary_rows(c, block, rows);
  // A sample without replacement (Floyd's method), drawn from all rows whatever the boundary rows
  // are, so that miss_probability holds for any bug.
  const RandomStream random(selection.seed, "compare/rows");
  std::set<std::int64_t> sample;
  for (std::int64_t i = total - selection.random_rows; i < total; ++i) {
    const auto drawn = static_cast<std::int64_t>(
        random.below(static_cast<std::uint64_t>(i), static_cast<std::uint64_t>(i) + 1));
    sample.insert(sample.count(drawn) == 0 ? drawn : i);
  }
  rows.insert(sample.begin(), sample.end());
  return {rows.begin(), rows.end()};
}

double miss_probability(std::int64_t rows_total, std::int64_t random_rows, double share) {
  const double total = static_cast<double>(rows_total);
  const double touched = std::ceil(share * total);
  double miss = 1.0;
  for (std::int64_t i = 0; i < std::min(random_rows, rows_total); ++i) {
    const double left = total - static_cast<double>(i);
    miss *= std::max(0.0, left - touched) / left;
  }
  return miss;
}

std::int64_t sequence_of(const Case& c, std::int64_t row) {
  std::int64_t b = 0;
  while (c.row_begin(b) + c.row_count(b) <= row) ++b;
  return b;
}

std::string describe_row(const Case& c, std::int64_t row) {
  const std::int64_t b = sequence_of(c, row);
  return "row " + std::to_string(row) + " (sequence " + std::to_string(b) + ", position " +
         std::to_string(c.query_position(b, row - c.row_begin(b))) + ")";
}

}  // namespace attn::harness
