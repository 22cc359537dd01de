#pragma once

#include <cstddef>
#include <span>

#include "reference/core/config.h"

namespace attn::reference::test {

/// Weight i of one GGUF block, looked up one bit field at a time and evaluated in double with
/// explicit roundings to float32: a second way, which shares nothing with reference/formats/gguf.
float gguf_weight_by_bits(QuantEncoding encoding, std::span<const std::byte> block, std::size_t i);

}  // namespace attn::reference::test
