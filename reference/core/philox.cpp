#include "reference/core/philox.h"

#include <limits>

namespace attn {
namespace {

using Counter = std::array<std::uint32_t, 4>;
using Key = std::array<std::uint32_t, 2>;

/// Ten rounds, inlined where they are used: the bulk generators live from overlapping the
/// multiplications of neighbouring counters.
inline Counter ten_rounds(Counter x, Key key) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = std::uint64_t{0xD2511F53} * x[0];
    const std::uint64_t b = std::uint64_t{0xCD9E8D57} * x[2];
    x = {static_cast<std::uint32_t>(b >> 32) ^ x[1] ^ key[0], static_cast<std::uint32_t>(b),
         static_cast<std::uint32_t>(a >> 32) ^ x[3] ^ key[1], static_cast<std::uint32_t>(a)};
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
  return x;
}

/// Normal and uniform draws of one stream use different halves of the counter space.
constexpr std::uint64_t kNormalHalf = std::uint64_t{1} << 63;

inline Counter counter_of(std::uint64_t i, const Key& stream) {
  return {static_cast<std::uint32_t>(i), static_cast<std::uint32_t>(i >> 32), stream[0], stream[1]};
}

/// Sum of eight 16-bit integers, centred (mean 8 * 65535 / 2) and divided by the square root of its
/// variance 8 * (2^32 - 1) / 12.
inline double irwin_hall(const Counter& x) {
  std::uint32_t sum = 0;
  for (const std::uint32_t word : x) sum += (word & 0xffff) + (word >> 16);
  constexpr double kScale = 0x1.3988e1412ed76p-16;  // sqrt(12 / (8 * (2^32 - 1)))
  return static_cast<double>(static_cast<std::int32_t>(sum) - 262140) * kScale;
}

/// FNV-1a.
std::uint64_t hash(std::string_view name) {
  std::uint64_t h = 0xcbf29ce484222325;
  for (const char c : name) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return h;
}

Key halves(std::uint64_t value) {
  return {static_cast<std::uint32_t>(value), static_cast<std::uint32_t>(value >> 32)};
}

/// Upper 64 bits of a * b.
std::uint64_t multiply_high(std::uint64_t a, std::uint64_t b) {
  const std::uint64_t a_low = a & 0xffffffff;
  const std::uint64_t b_low = b & 0xffffffff;
  const std::uint64_t middle = (a >> 32) * b_low + (a_low * b_low >> 32);
  const std::uint64_t other = a_low * (b >> 32) + (middle & 0xffffffff);
  return (a >> 32) * (b >> 32) + (middle >> 32) + (other >> 32);
}

}  // namespace

std::array<std::uint32_t, 4> philox4x32_10(std::array<std::uint32_t, 4> counter,
                                           std::array<std::uint32_t, 2> key) {
  return ten_rounds(counter, key);
}

RandomStream::RandomStream(std::uint64_t seed, std::string_view name)
    : key_(halves(seed)), stream_(halves(hash(name))) {}

std::uint64_t RandomStream::bits(std::uint64_t i) const {
  const Counter x = ten_rounds(counter_of(i & ~kNormalHalf, stream_), key_);
  return x[0] | static_cast<std::uint64_t>(x[1]) << 32;
}

double RandomStream::uniform(std::uint64_t i) const {
  return static_cast<double>(bits(i) >> 11) * 0x1p-53;
}

std::uint64_t RandomStream::below(std::uint64_t i, std::uint64_t n) const {
  return multiply_high(bits(i), n);
}

double RandomStream::normal(std::uint64_t i) const {
  return irwin_hall(ten_rounds(counter_of(i | kNormalHalf, stream_), key_));
}

void RandomStream::normals(std::uint64_t first, std::span<double> out) const {
  const Key key = key_;
  const Key stream = stream_;
  for (std::size_t i = 0; i < out.size(); ++i) {
    out[i] = irwin_hall(ten_rounds(counter_of((first + i) | kNormalHalf, stream), key));
  }
}

}  // namespace attn
