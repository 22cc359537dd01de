#include <gtest/gtest.h>

#include <chrono>
#include <cstdint>
#include <string>

#include "reference/core/philox.h"
#include "tests/golden/golden_test_util.h"

namespace attn::golden {
namespace {

/// Counts what became of damaged copies of one file.
struct Outcomes {
  int refused = 0;
  int unseen = 0;  ///< read, and equal in everything that the digests cover
};

class Fuzz : public testing::Test {
 protected:
  /// Reads `bytes` as a file; the only good ends are a refusal and the original's content.
  void try_bytes(const std::string& bytes, const GoldenFile& original, Outcomes& outcomes) {
    const std::string path = folder_ / "damaged.h5";
    put_bytes(path, bytes);
    try {
      const GoldenFile got = read(path);
      ++outcomes.unseen;
      EXPECT_EQ(got.seal, original.seal);
      EXPECT_EQ(got.config_json, original.config_json);
      EXPECT_EQ(got.datasets, original.datasets);
    } catch (const Error& error) {
      ++outcomes.refused;
      const std::string message = error.what();
      EXPECT_EQ(error.kind(), ErrorKind::kInput) << message;
      EXPECT_EQ(message.find('\n'), std::string::npos) << message;
      EXPECT_NE(message.find(path), std::string::npos) << message;
    }
  }

  TemporaryFolder folder_;
};

class SealedFuzz : public Fuzz {
 protected:
  void SetUp() override {
    const std::string path = folder_ / "sealed.h5";
    write(sealed_copy("core-zero-keys-sinks.h5"), path, false);
    bytes_ = bytes_of(path);
    original_ = read(path);
    ASSERT_EQ(original_.seal, Seal::kSealed);
  }

  std::string bytes_;
  GoldenFile original_;
};

TEST_F(SealedFuzz, EveryTruncationIsRefused) {
  // Every length around the ends, a stride that is prime to the blocks in between.
  Outcomes outcomes;
  for (std::size_t length = 0; length < bytes_.size();
       length += length < 64 || length + 64 > bytes_.size() ? 1 : 37) {
    SCOPED_TRACE("length " + std::to_string(length));
    try_bytes(bytes_.substr(0, length), original_, outcomes);
  }
  EXPECT_EQ(outcomes.unseen, 0);
  EXPECT_GT(outcomes.refused, 300);
}

TEST_F(SealedFuzz, AFlippedBitNeverGivesOtherData) {
  const RandomStream random(1, "golden-fuzz-bits");
  Outcomes outcomes;
  for (std::uint64_t i = 0; i < 600; ++i) {
    const std::uint64_t bit = random.below(i, bytes_.size() * 8);
    SCOPED_TRACE("bit " + std::to_string(bit));
    std::string damaged = bytes_;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << (bit % 8)));
    try_bytes(damaged, original_, outcomes);
  }
  // Unseen ones are unused bytes, the provenance and the case's name; a quarter of this small file.
  EXPECT_GT(outcomes.refused, outcomes.unseen);
}

TEST_F(SealedFuzz, ScatteredDamageNeverGivesOtherData) {
  const RandomStream random(2, "golden-fuzz-bytes");
  Outcomes outcomes;
  for (std::uint64_t i = 0; i < 150; ++i) {
    SCOPED_TRACE("round " + std::to_string(i));
    std::string damaged = bytes_;
    for (std::uint64_t k = 0; k < 16; ++k) {
      damaged[random.below(32 * i + k, damaged.size())] =
          static_cast<char>(random.below(32 * i + 16 + k, 256));
    }
    try_bytes(damaged, original_, outcomes);
  }
  EXPECT_GT(outcomes.refused, 140);
}

/// A file in the older layout, without checksums and unsealed: other data cannot be noticed, a
/// crash or a hang of the HDF5 library must not reach us.
TEST_F(Fuzz, DamagedMetadataWithoutChecksumsIsSurvived) {
  const std::string bytes = bytes_of(ATTN_SOURCE_DIR "/data/golden/core-zero-keys-sinks.h5");
  const RandomStream random(3, "golden-fuzz-metadata");
  const std::string path = folder_ / "damaged.h5";
  int refused = 0;
  for (std::uint64_t i = 0; i < 300; ++i) {
    SCOPED_TRACE("round " + std::to_string(i));
    std::string damaged = bytes;
    const std::uint64_t bit = random.below(i, bytes.size() * 8);
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << (bit % 8)));
    put_bytes(path, damaged);
    try {
      to_case(read(path), {});
    } catch (const Error& error) {
      ++refused;
      EXPECT_TRUE(error.kind() == ErrorKind::kInput || error.kind() == ErrorKind::kConfig);
      EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << error.what();
    }
  }
  EXPECT_GT(refused, 0);
}

}  // namespace
}  // namespace attn::golden
