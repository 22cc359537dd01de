#pragma once

#include <cstdint>
#include <vector>

#include "harness/compare/arithmetic.h"
#include "reference/core/config.h"
#include "reference/stages/rope_scaling.h"

namespace attn::harness {

/// Stage freqs_cis: the table's exact entries and how far a float32 angle may take a backend's from
/// them.
class RopeTableBound {
 public:
  RopeTableBound(const AttentionConfig& config, const Arithmetic& arithmetic);

  /// Column `column` of the row of position p: cos of pair column / 2 where even, else sin;
  /// float32.
  double entry(std::int64_t p, std::int64_t column) const;
  /// 2^-23 (1 + p inv_j) times the attention factor: the rounding of the entry, of inv_j and of the
  /// angle. Frequencies computed in float32 add the roundings of their own formula.
  double bound(std::int64_t p, std::int64_t pair) const;

 private:
  reference::RopeFrequencies frequencies_;
  std::vector<double>
      frequency_error_;  ///< [pairs] of inv_j in units of 2^-24, beyond one rounding
};

}  // namespace attn::harness
