#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "reference/core/config.h"

namespace attn {

/// One projection of a layer, y = x * W^T with W [out, in], and how its weight is stored.
struct Projection {
  std::string_view name;
  std::int64_t out = 0;
  std::int64_t in = 0;
  QuantEncoding encoding = QuantEncoding::kNone;
};

/// q_proj, k_proj, v_proj, o_proj.
inline std::array<Projection, 4> projections_of(const AttentionConfig& c) {
  const QuantConfig quant = c.quant.value_or(QuantConfig{});
  return {{{"q_proj", c.q_width(), c.hidden_size, quant.q_proj},
           {"k_proj", c.k_width(), c.hidden_size, quant.k_proj},
           {"v_proj", c.v_width(), c.hidden_size, quant.v_proj},
           {"o_proj", c.hidden_size, c.attn_width(), quant.o_proj}}};
}

/// Consecutive columns of a weight row that are stored together, and their bytes. {1, 0} for
/// encodings that are not GGUF.
struct GgufBlock {
  std::int64_t elements = 1;
  std::int64_t bytes = 0;
};

constexpr GgufBlock gguf_block(QuantEncoding encoding) {
  switch (encoding) {
    case QuantEncoding::kQ4_0:
      return {32, 18};
    case QuantEncoding::kQ8_0:
      return {32, 34};
    case QuantEncoding::kQ4_K:
      return {256, 144};
    case QuantEncoding::kQ5_K:
      return {256, 176};
    case QuantEncoding::kQ6_K:
      return {256, 210};
    default:
      return {};
  }
}

constexpr bool is_gguf(QuantEncoding encoding) { return gguf_block(encoding).bytes != 0; }

/// Columns that share one scale: 16 for nvfp4, 32 for mxfp4 and mxfp8, 1 for the others.
constexpr std::int64_t scale_block(QuantEncoding encoding) {
  switch (encoding) {
    case QuantEncoding::kNvfp4:
      return 16;
    case QuantEncoding::kMxfp4:
    case QuantEncoding::kMxfp8:
      return 32;
    default:
      return 1;
  }
}

}  // namespace attn
