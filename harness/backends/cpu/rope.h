#pragma once

#include <cstdint>
#include <vector>

#include "reference/core/config.h"

namespace attn::harness::cpu {

/// The table that config.rope describes, [positions, rotary_dim] float32: row p holds the pairs
/// (cos, sin) of p * inv_j times the attention factor, angles and factors in float64, rounded once.
std::vector<float> make_rope_table(const RopeConfig& rope, std::int64_t rotary_dim,
                                   std::int64_t positions);

/// Rotates one head of `head_dim` channels by a table row of `rotary_dim` numbers; channels that do
/// not rotate are copied. `in` and `out` may not overlap.
void rotate_head(const RopeConfig& rope, std::int64_t rotary_dim, std::int64_t head_dim,
                 const float* table_row, const float* in, float* out);

}  // namespace attn::harness::cpu
