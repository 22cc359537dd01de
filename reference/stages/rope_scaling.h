#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "reference/core/config.h"
#include "reference/stages/rounding.h"

namespace attn::reference {

/// How fast each rotary pair turns: pair j of position p has the angle p * inv_freq(p)[j], and its
/// cos and sin are multiplied by attention_factor.
struct RopeFrequencies {
  std::vector<double> below{};   ///< [rotary_dim / 2], positions below `boundary`
  std::vector<double> beyond{};  ///< [rotary_dim / 2], the others; longrope "max" only
  std::int64_t boundary = std::numeric_limits<std::int64_t>::max();
  double attention_factor = 1.0;

  const std::vector<double>& inv_freq(std::int64_t position) const {
    return position < boundary ? below : beyond;
  }
};

/// The frequencies of config.rope. Exact mode works in float64 throughout; faithful mode in
/// float32, as the model code does, with the powers of theta in float64 where that code takes them
/// so.
RopeFrequencies rope_frequencies(const AttentionConfig& config, Rounding r);

}  // namespace attn::reference
