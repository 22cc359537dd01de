#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "reference/stages/mask.h"

namespace attn::reference {

/// Neighbours in a list of query rows that belong to one sequence, and the keys that any of them
/// sees.
struct RowBlock {
  std::int64_t first = 0;      ///< index of its first row in the list
  std::int64_t first_key = 0;  ///< row of the logical cache: the first key that one of them sees
  std::int64_t num_keys = 0;
  std::vector<RowMask> masks;  ///< one per row; positions count from first_key

  std::int64_t num_rows() const { return static_cast<std::int64_t>(masks.size()); }
};

/// Cuts `rows` (row indices of the batch, ascending) into blocks whose scores for one kv head, rows
/// * group * keys, stay in the CPU's cache, and where causal rows do not pay for the keys of later
/// ones.
std::vector<RowBlock> row_blocks(const Case& c, std::span<const std::int64_t> rows);

}  // namespace attn::reference
