#include <algorithm>
#include <array>
#include <cmath>

#include "harness/generate/encode.h"

namespace attn::harness {
namespace {

using Values = std::span<const double>;
using Bytes = std::vector<std::byte>;

constexpr std::size_t kSmallBlock = 32;   // elements of q4_0 and q8_0
constexpr std::size_t kSuperBlock = 256;  // elements of the K-quants

void append(Bytes& bytes, std::uint64_t value) { bytes.push_back(static_cast<std::byte>(value)); }

/// Appends the float16 nearest to `value` and returns what it reads back as.
double append_half(Bytes& bytes, double value) {
  const std::uint64_t code = encode(ElementType::kFloat16, value);
  append(bytes, code & 0xffU);
  append(bytes, code >> 8U);
  return decode(ElementType::kFloat16, code);
}

/// value / step to the nearest integer within low .. high; 0 for step 0.
int nearest_code(double value, double step, int low, int high) {
  if (step == 0) return std::clamp(0, low, high);
  return static_cast<int>(std::clamp(std::nearbyint(value / step), static_cast<double>(low),
                                     static_cast<double>(high)));
}

/// The element of largest magnitude, with its sign.
double extreme(Values values) {
  return *std::ranges::max_element(values, {}, [](double v) { return std::abs(v); });
}

/// f16 d; u8 qs[16]: w = (nibble - 8) * d, elements 0 .. 15 in the low nibbles. The element of
/// largest magnitude becomes code 0.
void append_q4_0(Bytes& bytes, Values values) {
  const double d = append_half(bytes, extreme(values) / -8);
  for (std::size_t j = 0; j < kSmallBlock / 2; ++j) {
    const int low = nearest_code(values[j], d, -8, 7) + 8;
    const int high = nearest_code(values[j + kSmallBlock / 2], d, -8, 7) + 8;
    append(bytes, static_cast<std::uint64_t>(low | high << 4));
  }
}

/// f16 d; i8 qs[32]: w = q * d. The element of largest magnitude becomes code -128.
void append_q8_0(Bytes& bytes, Values values) {
  const double d = append_half(bytes, extreme(values) / -128);
  for (const double value : values) {
    append(bytes, static_cast<std::uint8_t>(nearest_code(value, d, -128, 127)));
  }
}

/// Scale and minimum of the eight groups of 32 of a q4_k or q5_k block, six bits each, in 12 bytes:
/// those of groups 0 .. 3 in the low six bits of bytes 0 .. 7; of groups 4 .. 7 the low four bits
/// in bytes 8 .. 11 and the high two bits on top of bytes 0 .. 7.
void append_scales_and_minima(Bytes& bytes, const std::array<int, 8>& scales,
                              const std::array<int, 8>& minima) {
  for (const std::array<int, 8>& six_bits : {scales, minima}) {
    for (std::size_t j = 0; j < 4; ++j) {
      append(bytes, static_cast<std::uint64_t>(six_bits[j] | six_bits[j + 4] >> 4 << 6));
    }
  }
  for (std::size_t j = 4; j < 8; ++j) {
    append(bytes, static_cast<std::uint64_t>((scales[j] & 15) | (minima[j] & 15) << 4));
  }
}

/// f16 d; f16 dmin; u8 sc[12], and the codes 0 .. top that w = d * S_j * code - dmin * M_j takes:
/// groups reach from their smallest value (or 0) to their largest.
std::array<int, kSuperBlock> append_k_header(Bytes& bytes, Values values, int top) {
  constexpr int kTopScale = 63;
  std::array<double, 8> steps{};
  std::array<double, 8> offsets{};
  for (std::size_t j = 0; j < 8; ++j) {
    const Values group = values.subspan(32 * j, 32);
    const auto [low, high] = std::ranges::minmax(group);
    offsets[j] = std::max(0.0, -low);
    steps[j] = std::max(0.0, high + offsets[j]) / top;
  }
  const double d = append_half(bytes, *std::ranges::max_element(steps) / kTopScale);
  const double dmin = append_half(bytes, *std::ranges::max_element(offsets) / kTopScale);
  std::array<int, 8> scales{};
  std::array<int, 8> minima{};
  std::array<int, kSuperBlock> codes{};
  for (std::size_t j = 0; j < 8; ++j) {
    scales[j] = nearest_code(steps[j], d, 0, kTopScale);
    minima[j] = nearest_code(offsets[j], dmin, 0, kTopScale);
    for (std::size_t l = 0; l < 32; ++l) {
      codes[32 * j + l] =
          nearest_code(values[32 * j + l] + dmin * minima[j], d * scales[j], 0, top);
    }
  }
  append_scales_and_minima(bytes, scales, minima);
  return codes;
}

/// u8 qs[128]: 64 elements to 32 bytes, the first 32 in the low nibbles.
void append_nibbles(Bytes& bytes, const std::array<int, kSuperBlock>& codes) {
  for (std::size_t chunk = 0; chunk < kSuperBlock; chunk += 64) {
    for (std::size_t l = 0; l < 32; ++l) {
      append(bytes, static_cast<std::uint64_t>((codes[chunk + l] & 15) |
                                               (codes[chunk + 32 + l] & 15) << 4));
    }
  }
}

void append_q4_k(Bytes& bytes, Values values) {
  append_nibbles(bytes, append_k_header(bytes, values, 15));
}

/// As q4_k, with u8 qh[32] in front of the nibbles: bit j of byte l is the fifth bit of element l
/// of group j.
void append_q5_k(Bytes& bytes, Values values) {
  const std::array<int, kSuperBlock> codes = append_k_header(bytes, values, 31);
  for (std::size_t l = 0; l < 32; ++l) {
    int fifth_bits = 0;
    for (std::size_t j = 0; j < 8; ++j) fifth_bits |= codes[32 * j + l] >> 4 << j;
    append(bytes, static_cast<std::uint64_t>(fifth_bits));
  }
  append_nibbles(bytes, codes);
}

/// u8 ql[128]; u8 qh[64]; i8 sc[16]; f16 d: w = d * sc * (code - 32), a scale for 16 elements. The
/// element of largest magnitude of a group becomes code 0, so scales have both signs.
void append_q6_k(Bytes& bytes, Values values) {
  std::array<double, 16> steps{};
  for (std::size_t g = 0; g < 16; ++g) steps[g] = extreme(values.subspan(16 * g, 16)) / -32;
  Bytes tail;
  std::array<int, 16> scales{};
  const double wanted = extreme(steps) / -128;
  const double d = decode(ElementType::kFloat16, encode(ElementType::kFloat16, wanted));
  std::array<int, kSuperBlock> codes{};
  for (std::size_t g = 0; g < 16; ++g) {
    scales[g] = nearest_code(steps[g], d, -128, 127);
    append(tail, static_cast<std::uint8_t>(scales[g]));
    for (std::size_t i = 16 * g; i < 16 * g + 16; ++i) {
      codes[i] = nearest_code(values[i], d * scales[g], -32, 31) + 32;
    }
  }
  append_half(tail, wanted);
  for (std::size_t half = 0; half < kSuperBlock; half += 128) {
    for (std::size_t l = 0; l < 64; ++l) {
      append(bytes,
             static_cast<std::uint64_t>((codes[half + l] & 15) | (codes[half + 64 + l] & 15) << 4));
    }
  }
  for (std::size_t half = 0; half < kSuperBlock; half += 128) {
    for (std::size_t l = 0; l < 32; ++l) {
      int high_bits = 0;
      for (std::size_t quarter = 0; quarter < 4; ++quarter) {
        high_bits |= codes[half + 32 * quarter + l] >> 4 << 2 * quarter;
      }
      append(bytes, static_cast<std::uint64_t>(high_bits));
    }
  }
  bytes.insert(bytes.end(), tail.begin(), tail.end());
}

}  // namespace

std::vector<std::byte> encode_gguf_blocks(QuantEncoding encoding, std::span<const double> values) {
  const bool small = encoding == QuantEncoding::kQ4_0 || encoding == QuantEncoding::kQ8_0;
  const std::size_t block = small ? kSmallBlock : kSuperBlock;
  Bytes bytes;
  for (std::size_t first = 0; first < values.size(); first += block) {
    const Values part = values.subspan(first, block);
    if (encoding == QuantEncoding::kQ4_0) append_q4_0(bytes, part);
    if (encoding == QuantEncoding::kQ8_0) append_q8_0(bytes, part);
    if (encoding == QuantEncoding::kQ4_K) append_q4_k(bytes, part);
    if (encoding == QuantEncoding::kQ5_K) append_q5_k(bytes, part);
    if (encoding == QuantEncoding::kQ6_K) append_q6_k(bytes, part);
  }
  return bytes;
}

void encode_gguf(const EncodeJob& job, LayerWeights& weights) {
  const Bytes bytes = encode_gguf_blocks(job.encoding, job.weight.values);
  const auto per_row = static_cast<std::int64_t>(bytes.size()) / job.weight.rows;
  Tensor stored(ElementType::kUInt8, {job.weight.rows, per_row});
  std::ranges::copy(bytes, stored.data());
  weights[job.projection + ".weight"] = std::move(stored);
}

}  // namespace attn::harness
