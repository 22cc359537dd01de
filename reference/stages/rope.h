#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "reference/core/case.h"
#include "reference/stages/rounding.h"

namespace attn::reference {

/// Position of each row of x in its sequence: cached + index of the row. [tokens]
std::vector<std::int64_t> row_positions(const Case& c);

/// Stage q_rope or k_rope: rotates the pairs (a, b) of each head of x [rows, heads*head_dim] by the
/// angle of row positions[i] of the table [P, rotary_dim], (cos, sin) pairs:
///   (a, b) -> (a cos - b sin, a sin + b cos).
/// Pair j is channels (2j, 2j+1) when interleaved, else (j, j + rotary_dim/2), counted from the
/// first rotary channel; other channels pass. The table serves both styles as it is. The layer as
/// it runs casts the table to config.dtype, rounds the product with b, and fuses the other one into
/// the sum.
Matrix rotate(const AttentionConfig& config, const Tensor& table, Matrix x,
              std::span<const std::int64_t> positions, Rounding r);

}  // namespace attn::reference
