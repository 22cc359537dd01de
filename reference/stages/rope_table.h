#pragma once

#include <cstdint>

#include "reference/core/config.h"
#include "reference/stages/rounding.h"

namespace attn::reference {

/// Stage freqs_cis: [positions, rotary_dim], row p = (cos a_0, sin a_0, cos a_1, sin a_1, ...)
/// times the attention factor, with a_j = p * inv_freq_j. Every entry is a float32 value. Exact
/// mode computes angles and factors in float64 and rounds once at the end; faithful mode computes
/// angles in float32.
Matrix rope_table(const AttentionConfig& config, std::int64_t positions, Rounding r);

}  // namespace attn::reference
