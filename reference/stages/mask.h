#pragma once

#include <cstdint>
#include <vector>

#include "reference/core/case.h"

namespace attn::reference {

/// What one query row sees of its sequence's keys. A key that is not seen takes no part in the
/// row's result, whatever its bits.
struct RowMask {
  /// The seen positions, begin <= k < end: one range for every mask. Empty: begin == end.
  std::int64_t begin = 0;
  std::int64_t end = 0;
  /// Mask variant "tensor": [end - begin], added to the scaled and capped scores; -inf hides a key.
  std::vector<double> added;

  bool sees(std::int64_t key) const;
};

/// The mask of query row `row` of sequence b (a row index of the whole batch).
RowMask row_mask(const Case& c, std::int64_t b, std::int64_t row);

}  // namespace attn::reference
