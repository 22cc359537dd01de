#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "gpu/faults/fault_switch.h"
#include "reference/core/element.h"

namespace attn::gpu {

/// One GGUF block, read by ggml's layouts: fields are little-endian and packed without gaps.
class GgufBlockReader {
 public:
  explicit GgufBlockReader(const std::byte* block) : block_(block) {}
  double half(int offset) const {
    std::uint16_t code = 0;
    std::memcpy(&code, block_ + offset, sizeof code);
    return decode(ElementType::kFloat16, code);
  }
  int u8(int offset) const { return static_cast<int>(block_[offset]); }
  int i8(int offset) const { return static_cast<std::int8_t>(block_[offset]); }

  /// 6-bit scale and min of group j of q4_k and q5_k, packed in the twelve bytes from 4.
  int group_scale(int j) const {
    if (ATTN_FAULT(k_quant_top_bits_dropped, j >= 4)) return u8(8 + j) & 15;
    if (ATTN_FAULT(k_quant_top_bits_swapped, j >= 4))
      return (u8(8 + j) & 15) | (u8(4 + j) >> 6) << 4;
    return j < 4 ? u8(4 + j) & 63 : (u8(8 + j) & 15) | (u8(j) >> 6) << 4;
  }
  int group_min(int j) const {
    if (ATTN_FAULT(k_quant_top_bits_dropped, j >= 4)) return u8(8 + j) >> 4;
    if (ATTN_FAULT(k_quant_top_bits_swapped, j >= 4)) return (u8(8 + j) >> 4) | (u8(j) >> 6) << 4;
    return j < 4 ? u8(8 + j) & 63 : (u8(8 + j) >> 4) | (u8(4 + j) >> 6) << 4;
  }

 private:
  const std::byte* block_;
};

}  // namespace attn::gpu
