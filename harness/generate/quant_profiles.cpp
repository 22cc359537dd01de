#include <algorithm>
#include <array>
#include <cmath>

#include "harness/generate/profiles.h"
#include "reference/core/philox.h"

namespace attn::harness {
namespace {

void scale_element(Tensor& t, std::int64_t flat, int exponent) {
  t.set_value(flat, std::ldexp(t.value(flat), exponent));
}

void scale_column(Tensor& matrix, std::int64_t column, int exponent) {
  for (std::int64_t r = 0; r < matrix.dim(0); ++r) {
    scale_element(matrix, r * matrix.dim(1) + column, exponent);
  }
}

void scale_rows(Tensor& matrix, std::int64_t first, std::int64_t count, int exponent) {
  const std::int64_t columns = matrix.size() / matrix.dim(0);
  for (std::int64_t i = first * columns; i < (first + count) * columns; ++i) {
    scale_element(matrix, i, exponent);
  }
}

/// Exponent of a channel: half of them keep their size, one in sixteen passes the largest amax that
/// dynamic activation scales allow (1200).
int channel_exponent(const RandomStream& stream, std::int64_t channel) {
  constexpr std::array<int, 16> kExponents = {0, 0, 0, 0, 0, 0, 0, 0, -6, -6, -4, -3, 3, 5, 7, 10};
  return kExponents[stream.below(static_cast<std::uint64_t>(channel), kExponents.size())];
}

/// A channel of x grows as the columns of q, k and v that read it shrink, so that the projections
/// stay as they are.
void spread_inputs(Draft& d) {
  const RandomStream stream(d.seed, "fp8_range.x");
  for (std::int64_t k = 0; k < d.config().hidden_size; ++k) {
    const int exponent = channel_exponent(stream, k);
    scale_column(d.c.x, k, exponent);
    for (auto& [name, weight] : d.c.weights) {
      const bool reads_x = name.ends_with("_proj.weight") && name != "o_proj.weight";
      if (reads_x) scale_column(weight, k, -exponent);
    }
  }
}

/// A channel of v grows as the columns of o_proj that read it shrink.
void spread_values(Draft& d) {
  const AttentionConfig& config = d.config();
  const std::int64_t width = config.head_dim_v;
  const RandomStream stream(d.seed, "fp8_range.v");
  for (std::int64_t j = 0; j < config.num_key_value_heads * width; ++j) {
    const int exponent = channel_exponent(stream, j);
    for (std::int64_t p = 0; p < d.v.dim(0); ++p) {
      scale_element(d.v, p * config.num_key_value_heads * width + j, exponent);
    }
    if (config.starts_at_attention()) continue;
    const ProjectionRows rows = rows_of(config, Projection::kV);
    scale_rows(d.c.weights.at(rows.weight), rows.first + j, 1, exponent);
    if (config.has_bias) scale_element(d.c.weights.at("v_proj.bias"), j, exponent);
    for (std::int64_t g = 0; g < config.group_size(); ++g) {
      const std::int64_t head = j / width * config.group_size() + g;
      scale_column(d.c.weights.at("o_proj.weight"), head * width + j % width, -exponent);
    }
  }
}

/// A channel of k grows as that of q shrinks. Only where both are given: RoPE mixes channels.
void spread_keys(Draft& d) {
  const AttentionConfig& config = d.config();
  const RandomStream stream(d.seed, "fp8_range.k");
  const auto scale_heads = [&](Tensor& t, std::int64_t heads_per_kv_head, int sign) {
    for (std::int64_t i = 0; i < t.size(); ++i) {
      // Heads that will be made equal shrink and grow alike.
      const std::int64_t kv_head =
          d.c.layout.broadcast ? 0 : i / config.head_dim % t.dim(1) / heads_per_kv_head;
      const std::int64_t channel = kv_head * config.head_dim + i % config.head_dim;
      scale_element(t, i, sign * channel_exponent(stream, channel));
    }
  };
  scale_heads(d.k, 1, 1);
  scale_heads(d.c.q, config.group_size(), -1);
}

/// One row in six is zero: its dynamic scale is 0. A norm of zeros is NaN when its epsilon rounds
/// to 0.
void clear_rows(Draft& d) {
  if (d.config().use_qk_norm) return;
  const RandomStream stream(d.seed, "fp8_range.zero");
  for (std::int64_t t = 0; t < d.c.tokens(); ++t) {
    if (stream.below(static_cast<std::uint64_t>(t), 6) != 0) continue;
    for (std::int64_t k = 0; k < d.config().hidden_size; ++k) {
      d.c.x.set_value(t * d.config().hidden_size + k, 0.0);
    }
  }
}

/// Reshapes `count` weights so that the codes, scales and minima of their block reach an extreme.
/// `choice` picks one of the ways; half of the choices leave the block as it is.
void reshape_block(Tensor& weight, std::int64_t first, std::int64_t count, std::uint64_t choice) {
  constexpr std::uint64_t kWays = 10;
  double amax = 0;
  for (std::int64_t i = first; i < first + count; ++i) {
    amax = std::max(amax, std::abs(weight.value(i)));
  }
  // Sixty-fourths of the weights, so that six-bit scales and minima take every value.
  const auto part = static_cast<double>(choice / kWays % 64) / 64;
  for (std::int64_t i = first; i < first + count; ++i) {
    const double value = weight.value(i);
    switch (choice % kWays) {
      case 0:
        weight.set_value(i, std::abs(value));  // no minimum
        break;
      case 1:
        weight.set_value(i, -std::abs(value));  // nothing but a minimum
        break;
      case 2:
        weight.set_value(i, value < 0 ? -amax : amax);  // the outermost codes only
        break;
      case 3:
      case 4:
        weight.set_value(i, value * part);  // a small scale beside large ones, or none
        break;
      default:
        return;
    }
  }
}

/// Whether columns of very different size keep their size beside each other in the weights' codes.
bool holds_range(const AttentionConfig& config) {
  if (!config.quant) return true;
  const QuantEncoding encoding = config.quant->q_proj;
  return encoding == QuantEncoding::kFloat8E4M3FN || encoding == QuantEncoding::kMxfp8;
}

}  // namespace

void shape_fp8_range(Draft& d) {
  spread_values(d);
  if (d.config().starts_at_attention()) {
    spread_keys(d);
    return;
  }
  if (holds_range(d.config())) spread_inputs(d);
  clear_rows(d);
}

void shape_code_extremes(Draft& d) {
  constexpr std::int64_t kBlock = 32;  // columns: a block of q4_0, a group of q4_k, two of q6_k
  for (auto& [name, weight] : d.c.weights) {
    if (!name.ends_with("_proj.weight")) continue;
    const RandomStream stream(d.seed, "code_extremes." + name);
    const std::int64_t columns = weight.dim(1);
    std::uint64_t block = 0;
    for (std::int64_t r = 0; r < weight.dim(0); ++r) {
      for (std::int64_t k = 0; k < columns; k += kBlock, ++block) {
        reshape_block(weight, r * columns + k, std::min(kBlock, columns - k), stream.bits(block));
      }
    }
  }
}

}  // namespace attn::harness
