#include "reference/stages/row_blocks.h"

#include <algorithm>
#include <utility>

namespace attn::reference {
namespace {

/// Rows of a block of one sequence with that many keys.
std::int64_t block_size(std::int64_t keys, std::int64_t group) {
  constexpr std::int64_t kMaxScores = std::int64_t{1} << 20;
  constexpr std::int64_t kMaxRows = 64;
  return std::clamp<std::int64_t>(kMaxScores / std::max<std::int64_t>(1, keys * group), 1,
                                  kMaxRows);
}

/// The block of `rows`, all of sequence b, whose keys begin at row `keys_at` of the logical cache.
RowBlock make_block(const Case& c, std::int64_t b, std::span<const std::int64_t> rows,
                    std::int64_t first, std::int64_t keys_at) {
  RowBlock block;
  block.first = first;
  std::int64_t begin = c.key_count(b);
  std::int64_t end = 0;
  for (const std::int64_t row : rows) {
    block.masks.push_back(row_mask(c, b, row));
    begin = std::min(begin, block.masks.back().begin);
    end = std::max(end, block.masks.back().end);
  }
  for (RowMask& mask : block.masks) {
    mask.begin -= begin;
    mask.end -= begin;
  }
  block.first_key = keys_at + begin;
  block.num_keys = end - begin;
  return block;
}

}  // namespace

std::vector<RowBlock> row_blocks(const Case& c, std::span<const std::int64_t> rows) {
  std::vector<RowBlock> blocks;
  auto row = rows.begin();
  std::int64_t keys_at = 0;
  for (std::int64_t b = 0; b < c.batch(); ++b) {
    const auto end = std::lower_bound(row, rows.end(), c.row_begin(b) + c.row_count(b));
    const std::int64_t size = block_size(c.key_count(b), c.config.group_size());
    while (row != end) {
      const auto next = row + std::min<std::int64_t>(size, end - row);
      blocks.push_back(make_block(c, b, {row, next}, row - rows.begin(), keys_at));
      row = next;
    }
    keys_at += c.key_count(b);
  }
  return blocks;
}

}  // namespace attn::reference
