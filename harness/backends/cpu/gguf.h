#pragma once

#include <cstddef>
#include <cstdint>

#include "reference/core/config.h"

namespace attn::harness::cpu {

/// Columns and bytes of one block of a GGUF encoding, and its decoder: `bytes` to `columns` float32
/// values, each the float32 expression of ggml's block layout, evaluated from left to right.
struct GgufFormat {
  std::int64_t columns;
  std::int64_t bytes;
  void (*decode_block)(const std::byte* block, float* values);
};

/// Throws Error(kInternal) for an encoding that is not GGUF.
const GgufFormat& gguf_format(QuantEncoding encoding);

/// Whether `encoding` is one of q4_0, q8_0, q4_k, q5_k, q6_k.
bool is_gguf_encoding(QuantEncoding encoding);

}  // namespace attn::harness::cpu
