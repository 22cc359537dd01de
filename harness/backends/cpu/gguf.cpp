#include "harness/backends/cpu/gguf.h"

#include <array>
#include <cstring>

#include "harness/backends/cpu/fault_switch.h"
#include "harness/backends/cpu/unpack.h"
#include "reference/core/error.h"

namespace attn::harness::cpu {
namespace {

using Byte = std::uint8_t;

const Byte* bytes_at(const std::byte* block, std::int64_t offset) {
  return reinterpret_cast<const Byte*>(block + offset);
}

float half_at(const std::byte* block, std::int64_t offset) {
  std::uint16_t code = 0;
  std::memcpy(&code, block + offset, sizeof code);
  return float_from_half(code);
}

/// f16 d; u8 qs[16]: columns 0 .. 15 in the low nibbles, 16 .. 31 in the high ones.
void decode_q4_0(const std::byte* block, float* values) {
  const float d = half_at(block, 0);
  const Byte* const qs = bytes_at(block, 2);
  for (int j = 0; j < 16; ++j) {
    values[j] = static_cast<float>((qs[j] & 15) - 8) * d;
    values[j + 16] = static_cast<float>((qs[j] >> 4) - 8) * d;
    if (ATTN_FAULT(q4_0_halves_swapped)) std::swap(values[j], values[j + 16]);
  }
}

/// f16 d; i8 qs[32].
void decode_q8_0(const std::byte* block, float* values) {
  const float d = half_at(block, 0);
  const auto* const qs = reinterpret_cast<const std::int8_t*>(block + 2);
  for (int j = 0; j < 32; ++j) {
    const int code = ATTN_FAULT(q8_0_lowest_code, qs[j] == -127) ? -126 : qs[j];
    values[j] = static_cast<float>(code) * d;
  }
}

/// What a group of 32 columns of Q4_K and Q5_K is made with: value = scale * code - min.
struct Group {
  float scale;
  float min;
};

/// The eight groups of f16 d; f16 dmin; u8 packed[12]. A scale and a min have 6 bits each: those of
/// groups 0 .. 3 are the low bits of bytes 0 .. 7, whose two top bits complete the nibbles of bytes
/// 8 .. 11 to those of groups 4 .. 7. d * 63 has 17 bits, so the products are exact.
std::array<Group, 8> groups_of(const std::byte* block) {
  const float d = half_at(block, 0);
  const float d_min = half_at(block, 2);
  const Byte* const packed = bytes_at(block, 4);
  std::array<Group, 8> groups{};
  for (std::size_t j = 0; j < 4; ++j) {
    groups[j] = {d * static_cast<float>(packed[j] & 63),
                 d_min * static_cast<float>(packed[j + 4] & 63)};
    int scale = (packed[j + 8] & 15) | (packed[j] >> 6 << 4);
    int min = (packed[j + 8] >> 4) | (packed[j + 4] >> 6 << 4);
    if (ATTN_FAULT(k_quant_top_bits_swapped, packed[j] >> 6 != packed[j + 4] >> 6)) {
      scale = (packed[j + 8] & 15) | (packed[j + 4] >> 6 << 4);
      min = (packed[j + 8] >> 4) | (packed[j] >> 6 << 4);
    }
    if (ATTN_FAULT(k_quant_top_bits_dropped, scale >= 16 || min >= 16)) scale &= 15, min &= 15;
    groups[j + 4] = {d * static_cast<float>(scale), d_min * static_cast<float>(min)};
  }
  for (std::size_t j = 1; j < groups.size(); ++j) {
    if (ATTN_FAULT(k_quant_minimum_kept, groups[j].min == 0.0f && groups[j - 1].min != 0.0f)) {
      groups[j].min = groups[j - 1].min;
    }
  }
  return groups;
}

/// d, dmin, packed; u8 qs[128]: 32 bytes hold an even group in their low nibbles and the odd one
/// after it in the high ones.
void decode_q4_k(const std::byte* block, float* values) {
  const std::array<Group, 8> groups = groups_of(block);
  const Byte* qs = bytes_at(block, 16);
  for (std::size_t j = 0; j < 8; j += 2, qs += 32, values += 64) {
    const Group even = groups[j];
    const Group odd = groups[j + 1];
    for (int l = 0; l < 32; ++l) {
      values[l] = even.scale * static_cast<float>(qs[l] & 15) - even.min;
      values[l + 32] = odd.scale * static_cast<float>(qs[l] >> 4) - odd.min;
      if (ATTN_FAULT(q4_k_minimum_added, odd.min != 0.0f)) values[l + 32] += 2.0f * odd.min;
    }
  }
}

/// d, dmin, packed; u8 qh[32], bit j of byte l being the fifth bit of column l of group j; u8
/// qs[128] as in Q4_K.
void decode_q5_k(const std::byte* block, float* values) {
  const std::array<Group, 8> groups = groups_of(block);
  const Byte* const qh = bytes_at(block, 16);
  const Byte* qs = bytes_at(block, 48);
  for (std::size_t j = 0; j < 8; j += 2, qs += 32, values += 64) {
    const Group even = groups[j];
    const Group odd = groups[j + 1];
    for (int l = 0; l < 32; ++l) {
      int fifth = qh[l] >> j;
      if (ATTN_FAULT(q5_k_high_bit_order)) fifth = (fifth & 1) << 1 | (fifth >> 1 & 1);
      values[l] = even.scale * static_cast<float>((qs[l] & 15) | (fifth & 1) << 4) - even.min;
      values[l + 32] = odd.scale * static_cast<float>((qs[l] >> 4) | (fifth & 2) << 3) - odd.min;
    }
  }
}

/// u8 ql[128]; u8 qh[64]; i8 sc[16]; f16 d. A half of 128 columns is four quarters of 32: the low
/// nibbles of 64 bytes of ql are quarters 0 and 1, the high ones 2 and 3, and bits 2u and 2u + 1 of
/// byte l of qh are on top of quarter u. 16 columns share a scale.
void decode_q6_k(const std::byte* block, float* values) {
  const float d = half_at(block, 208);
  for (int half = 0; half < 2; ++half, values += 128) {
    const Byte* const ql = bytes_at(block, 64 * half);
    const Byte* const qh = bytes_at(block, 128 + 32 * half);
    const auto* const sc = reinterpret_cast<const std::int8_t*>(block + 192 + 8 * half);
    for (int sixteen = 0; sixteen < 2; ++sixteen) {
      float scale[4];
      for (int u = 0; u < 4; ++u) scale[u] = d * static_cast<float>(sc[2 * u + sixteen]);
      if (ATTN_FAULT(q6_k_scale_of_32, sixteen == 1)) {
        for (int u = 0; u < 4; ++u) scale[u] = d * static_cast<float>(sc[2 * u]);
      }
      for (int l = 16 * sixteen; l < 16 * sixteen + 16; ++l) {
        const int first = (ql[l] & 15) | (qh[l] & 3) << 4;
        const int second = (ql[l + 32] & 15) | (qh[l] >> 2 & 3) << 4;
        const int third = (ql[l] >> 4) | (qh[l] >> 4 & 3) << 4;
        int fourth = (ql[l + 32] >> 4) | (qh[l] >> 6) << 4;
        if (ATTN_FAULT(q6_k_top_bits_signed, qh[l] >= 128)) fourth -= 64;
        values[l] = scale[0] * static_cast<float>(first - 32);
        values[l + 32] = scale[1] * static_cast<float>(second - 32);
        values[l + 64] = scale[2] * static_cast<float>(third - 32);
        values[l + 96] = scale[3] * static_cast<float>(fourth - 32);
      }
    }
  }
}

constexpr GgufFormat kQ4_0{32, 18, decode_q4_0};
constexpr GgufFormat kQ8_0{32, 34, decode_q8_0};
constexpr GgufFormat kQ4_K{256, 144, decode_q4_k};
constexpr GgufFormat kQ5_K{256, 176, decode_q5_k};
constexpr GgufFormat kQ6_K{256, 210, decode_q6_k};

const GgufFormat* find_format(QuantEncoding encoding) {
  switch (encoding) {
    case QuantEncoding::kQ4_0:
      return &kQ4_0;
    case QuantEncoding::kQ8_0:
      return &kQ8_0;
    case QuantEncoding::kQ4_K:
      return &kQ4_K;
    case QuantEncoding::kQ5_K:
      return &kQ5_K;
    case QuantEncoding::kQ6_K:
      return &kQ6_K;
    default:
      return nullptr;
  }
}

}  // namespace

bool is_gguf_encoding(QuantEncoding encoding) { return find_format(encoding) != nullptr; }

const GgufFormat& gguf_format(QuantEncoding encoding) {
  const GgufFormat* const format = find_format(encoding);
  if (format == nullptr) {
    throw Error(ErrorKind::kInternal,
                "cpu: " + std::string(name_of(encoding)) + " has no GGUF blocks");
  }
  return *format;
}

}  // namespace attn::harness::cpu
