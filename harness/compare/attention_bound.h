#pragma once

// Internal to harness/compare (Eigen): attention of a block of query rows over one key head, each
// element of lse and attn_out with its allowance. docs/numerics.md derives the formulas.

#include <cstdint>
#include <optional>

#include "harness/compare/stage_bounds.h"

namespace attn::harness {

/// The keys [begin, end) that a query row sees; empty when begin >= end.
struct KeyRange {
  std::int64_t begin = 0;
  std::int64_t end = 0;
  std::int64_t count() const { return end > begin ? end - begin : 0; }
};

/// Keys that the mask variant shows to the query at `position` among `keys` keys.
KeyRange visible_keys(const MaskConfig& mask, std::int64_t position, std::int64_t keys);

/// What a block of queries of one group of heads attends to.
struct AttentionBlock {
  Bounded q;        ///< [rows * group, D]: the group's heads of a row are neighbours
  Bounded k;        ///< [keys, D], of the key head; keys of all rows' ranges
  Bounded v;        ///< [keys, Dv]
  RowMatrix mask;   ///< [rows, keys] added to the scores, or empty
  std::vector<KeyRange> ranges;  ///< [rows], relative to the first key of the block
  std::vector<double> sinks;     ///< [group], or empty
  double scale = 1.0;
  std::optional<double> softcap;

  Eigen::Index group() const { return q.y.rows() / static_cast<Eigen::Index>(ranges.size()); }
};

struct AttentionBound {
  Bounded lse;  ///< [rows * group, 1]
  Bounded out;  ///< [rows * group, Dv]
};

AttentionBound attend(const AttentionBlock& block, const BoundOptions& options);

}  // namespace attn::harness
