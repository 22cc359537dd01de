// The order in which quantised weights lie on the device: host code, tested without one.
#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>

#include "gpu/layers/coded_weights.h"

namespace attn::gpu {
namespace {

constexpr std::int64_t kRows = 20;     // a tile and a quarter
constexpr std::int64_t kColumns = 96;  // a chunk and a half
constexpr std::int64_t kGroup = 32;

CodedRows rows_of_four_bits() {
  CodedRows w;
  w.scaling = CodeScaling::kWeight;
  w.rounded = ElementType::kBFloat16;
  w.offset = 8;
  w.columns = kColumns;
  w.group = kGroup;
  for (std::int64_t n = 0; n < kRows; ++n) {
    for (std::int64_t k = 0; k < kColumns; ++k) {
      w.codes.push_back(static_cast<std::uint8_t>((7 * n + 5 * k + k / 16) % 16));
    }
    for (std::int64_t g = 0; g < kColumns / kGroup; ++g) {
      w.inner.push_back(static_cast<float>(1 + n * 3 + g));
    }
  }
  return w;
}

/// The code that mma.sync's lane has for W's row and column: PTX, figure of m16n8k16's A.
std::uint32_t code_of_lane(const PackedWeight& packed, std::int64_t row, std::int64_t k) {
  const std::int64_t tile = row / 16, chunk = k / 64, step = k % 64 / 16;
  const std::int64_t r = row % 16, c = k % 16;
  const std::int64_t lane = r % 8 * 4 + c % 8 / 2;
  const std::int64_t reg = r / 8 + 2 * (c / 8);  // a0: top left, a1: below, a2: right of a0
  const std::int64_t word = ((tile * packed.matrix.chunks + chunk) * 32 + lane) * 4 + step;
  std::uint32_t bits = 0;
  std::memcpy(&bits, packed.codes.data.data() + word * 4, sizeof bits);
  return bits >> (4 * reg + 16 * (c % 2)) & 15U;
}

TEST(PackedWeight, HoldsEachCodeWhereItsLaneReadsIt) {
  const CodedRows w = rows_of_four_bits();
  const PackedWeight packed = pack(w);
  EXPECT_EQ(packed.matrix.rows, 32);
  EXPECT_EQ(packed.matrix.chunks, 2);
  for (std::int64_t n = 0; n < 32; ++n) {
    for (std::int64_t k = 0; k < 128; ++k) {
      const bool inside = n < kRows && k < kColumns;
      const std::uint32_t want =
          inside ? w.codes[static_cast<std::size_t>(n * kColumns + k)] : 8U;  // a weight of 0
      ASSERT_EQ(code_of_lane(packed, n, k), want) << n << ", " << k;
    }
  }
}

TEST(PackedWeight, HoldsScalesOfBothRowsOfALaneBesideEachOther) {
  const CodedRows w = rows_of_four_bits();
  const PackedWeight packed = pack(w);
  EXPECT_EQ(packed.inner.bytes, 2 * 16 * 2);  // two groups of a chunk, 16 rows, bfloat16
  EXPECT_EQ(packed.inner.shift, 0);
  for (std::int64_t n = 0; n < kRows; ++n) {
    for (std::int64_t g = 0; g < kColumns / kGroup; ++g) {
      const std::int64_t record = n / 16 * packed.matrix.chunks + g / 2;
      const std::int64_t at = record * packed.inner.bytes / 2 + g % 2 * 16 + n % 8 * 2 + n % 16 / 8;
      std::uint16_t bits = 0;
      std::memcpy(&bits, packed.inner.data.data() + at * 2, sizeof bits);
      EXPECT_EQ(decode(ElementType::kBFloat16, bits), w.inner[static_cast<std::size_t>(n * 3 + g)])
          << n << ", " << g;
    }
  }
}

}  // namespace
}  // namespace attn::gpu
