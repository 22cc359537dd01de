#pragma once

// Internal to harness/compare (Eigen): attention of a block of query rows over one key head, each
// element of lse and attn_out with its allowance. docs/numerics.md derives the formulas.

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "harness/compare/stage_bounds.h"
#include "reference/stages/mask.h"

namespace attn::harness {

/// What a block of query rows of one group of heads attends to.
struct AttentionBlock {
  /// [rows * group, D]: the heads of a row that share the key head are neighbours.
  Bounded q;
  std::vector<reference::RowMask> masks;  ///< [rows]
  /// The keys [first_key, end_key) of the sequence hold every row's range.
  std::int64_t first_key = 0;
  std::int64_t end_key = 0;
  /// Keys [count, D] and values [count, Dv] of positions first .. first + count - 1.
  std::function<Bounded(std::int64_t first, std::int64_t count)> keys;
  std::function<Bounded(std::int64_t first, std::int64_t count)> values;
  std::int64_t value_dim = 0;  ///< Dv
  std::vector<double> sinks;   ///< [group], or empty
  double scale = 1.0;
  std::optional<double> softcap;
  /// Relative error of each key and value as the backend reads it: those of a scaled cache.
  double cache_error = 0.0;
  /// [hidden, group * Dv]: the columns of the output projection that read these heads; empty where
  /// the errors go no further.
  RowMatrix output_weight;
};

struct AttentionBound {
  Bounded lse;  ///< [rows * group, 1]
  /// [rows * group, Dv]; s is that of each channel's own error, without the logits' error, which
  /// the channels of a head share.
  Bounded out;
  /// [rows, hidden]: errors of what the group's heads bring to the output projection; empty unless
  /// its weight was given.
  JointErrors projected;
};

AttentionBound attend(const AttentionBlock& block, const BoundOptions& options);

}  // namespace attn::harness
