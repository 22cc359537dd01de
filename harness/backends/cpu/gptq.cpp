#include "harness/backends/cpu/gptq.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "harness/backends/cpu/fault_switch.h"
#include "harness/backends/cpu/simd.h"

namespace attn::harness::cpu {
namespace {

using Unsigned4 = std::uint32_t __attribute__((vector_size(16)));
using Int4 = std::int32_t __attribute__((vector_size(16)));

Unsigned4 load_words(const std::uint32_t* p) {
  Unsigned4 words;
  std::memcpy(&words, p, sizeof words);
  return words;
}

/// Rows become columns.
void transpose4(Float4 (&m)[4]) {
  const Float4 low01 = __builtin_shufflevector(m[0], m[1], 0, 4, 1, 5);
  const Float4 high01 = __builtin_shufflevector(m[0], m[1], 2, 6, 3, 7);
  const Float4 low23 = __builtin_shufflevector(m[2], m[3], 0, 4, 1, 5);
  const Float4 high23 = __builtin_shufflevector(m[2], m[3], 2, 6, 3, 7);
  m[0] = __builtin_shufflevector(low01, low23, 0, 1, 4, 5);
  m[1] = __builtin_shufflevector(low01, low23, 2, 3, 6, 7);
  m[2] = __builtin_shufflevector(high01, high23, 0, 1, 4, 5);
  m[3] = __builtin_shufflevector(high01, high23, 2, 3, 6, 7);
}

/// Rows first .. first + rows.count - 1 of a weight of kBits bits.
template <int kBits>
struct Decoder {
  static constexpr std::int64_t kPerWord = 32 / kBits;
  static constexpr std::uint32_t kMask = (1u << kBits) - 1u;
  static constexpr auto kZero = static_cast<float>(1 << (kBits - 1));

  float zero() const {
    if (ATTN_FAULT(gptq_zero_one_less)) return kZero - 1.0f;
    return ATTN_FAULT(gptq_zero_of_4_bits, kBits == 8) ? 8.0f : kZero;
  }

  const std::uint32_t* words;  // of the first row; the next k's words are `pitch` further
  std::int64_t pitch;
  const float* scales;  // [groups, rows.count]
  const std::int32_t* group;
  Rows& rows;

  float value(std::int64_t n, std::int64_t k) const {
    const std::uint32_t word = words[k / kPerWord * pitch + n];
    const std::uint32_t code = word >> (k % kPerWord * kBits) & kMask;
    return (static_cast<float>(code) - zero()) * scales[group[k] * rows.count + n];
  }

  /// Rows n .. n + 3 of columns k .. k + 3, four codes of one word.
  void decode_square(std::int64_t n, std::int64_t k) const {
    const Unsigned4 word = load_words(words + k / kPerWord * pitch + n);
    Float4 square[4];
    for (int j = 0; j < 4; ++j) {
      const auto shift = static_cast<std::uint32_t>(k % kPerWord + j) * kBits;
      const auto code = reinterpret_cast<Int4>(word >> shift & kMask);
      square[j] = (__builtin_convertvector(code, Float4) - zero()) *
                  load4(scales + group[k + j] * rows.count + n);
    }
    transpose4(square);
    for (int i = 0; i < 4; ++i) store4(rows.row(n + i) + k, square[i]);
  }

  void run() const {
    const std::int64_t whole_n = rows.count / 4 * 4;
    const std::int64_t whole_k = rows.width / 4 * 4;
    for (std::int64_t k = 0; k < whole_k; k += 4) {
      for (std::int64_t n = 0; n < whole_n; n += 4) decode_square(n, k);
    }
    for (std::int64_t n = 0; n < rows.count; ++n) {
      for (std::int64_t k = n < whole_n ? whole_k : 0; k < rows.width; ++k) {
        rows.row(n)[k] = value(n, k);
      }
    }
  }
};

}  // namespace

void GptqWeight::decode(std::int64_t first, Rows& rows) const {
  const std::int64_t out = qweight->dim(1);
  std::vector<std::int32_t> group(g_idx->as<std::int32_t>(),
                                  g_idx->as<std::int32_t>() + g_idx->size());
  if (ATTN_FAULT(gptq_group_order_ignored, !std::ranges::is_sorted(group)))
    std::ranges::sort(group);
  std::vector<float> panel_scales(static_cast<std::size_t>(scales->dim(0) * rows.count));
  for (std::int64_t g = 0; g < scales->dim(0); ++g) {
    unpack(scales->type(), scales->data() + 2 * (g * out + first), rows.count,
           panel_scales.data() + g * rows.count);
  }
  const std::uint32_t* const words = qweight->as<std::uint32_t>() + first;
  if (bits == 4) {
    Decoder<4>{words, out, panel_scales.data(), group.data(), rows}.run();
  } else {
    Decoder<8>{words, out, panel_scales.data(), group.data(), rows}.run();
  }
}

}  // namespace attn::harness::cpu
