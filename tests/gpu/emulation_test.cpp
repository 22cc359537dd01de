// The Hopper prefill kernel itself, its source and its host code, on an emulated block (emulator/):
// everything but the PTX and the chip. Memory that nothing may read is NaN.
#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <random>

#include "gpu/kernels/hopper_work.h"
#include "tests/gpu/emulated_attention.h"

namespace attn::gpu {
namespace {

TEST(HopperEmulation, OneTileAndOneStep) {
  EmulatedCall p;
  p.sequences = {{128, 128}};
  EXPECT_EQ(run_emulated(p, 1), "");
}

TEST(HopperEmulation, StepsTailsAndTiles) {
  for (const int keys : {1, 64, 127, 129, 300, 384}) {
    EmulatedCall p;
    p.mask = MaskKind::kCausal;
    p.sequences = {{150, keys}};
    EXPECT_EQ(run_emulated(p, static_cast<std::uint64_t>(keys)), "") << p.text();
  }
}

/// A thread has two rows, 8 apart. Where one's maximum never rises, outputs are rescaled for the
/// other's.
TEST(HopperEmulation, EitherRowOfAThreadRescales) {
  for (const int level : {0, 1}) {
    EmulatedCall p;
    p.sequences = {{128, 500}};
    p.level_rows = level;
    EXPECT_EQ(run_emulated(p, 1), "") << level;
  }
}

TEST(HopperEmulation, ScoresRiseFromStepToStep) {
  for (const float rise : {3.0f, 6.0f, 40.0f}) {
    for (const int head_dim : {64, 128, 256}) {
      EmulatedCall p;
      p.type = head_dim == 128 ? Type::kFloat16 : Type::kBFloat16;
      EXPECT_EQ(run_emulated_rise(p, rise, head_dim), "") << p.text() << " rise " << rise;
    }
  }
}

/// In the third step one key is far above the shift, for eight rows of a warp: one probability of
/// some threads says so, and one of the scores of which they take maxima.
TEST(HopperEmulation, OneKeyAloneIsAboveTheShift) {
  EmulatedCall p;
  p.type = Type::kFloat16;
  p.lone_keys = true;
  p.sequences = {{256, 384}};
  EXPECT_EQ(run_emulated(p, 1), "");
}

EmulatedCall random_call(std::uint64_t seed) {
  std::mt19937_64 random(seed);
  const auto draw = [&](int low, int high) {
    return std::uniform_int_distribution<int>(low, high)(random);
  };
  EmulatedCall p;
  p.type = draw(0, 2) == 0 ? Type::kFloat16 : Type::kBFloat16;
  p.kv_heads = draw(1, 2);
  p.heads = p.kv_heads * std::array{1, 2, 3, 4, 8}[static_cast<std::size_t>(draw(0, 4))];
  p.head_dim = std::array{128, 64, 192, 256, 72, 40, 136, 200}[seed % 8];
  p.head_dim_v = p.head_dim > 64 && draw(0, 3) == 0 ? p.head_dim - 8 : p.head_dim;
  if ((p.head_dim_v + 63) / 64 != (p.head_dim + 63) / 64) p.head_dim_v = p.head_dim;
  p.page_size = std::array{8, 16, 24, 48, 64, 128, 256}[static_cast<std::size_t>(draw(0, 6))];
  p.heads_first = draw(0, 1) == 0;
  p.mask = static_cast<MaskKind>(draw(0, 4));
  p.span = draw(0, 1) == 0 ? draw(1, 30) : draw(31, 300);
  p.top_left = draw(0, 3) == 0;
  p.sinks = draw(0, 2) == 0;
  if (draw(0, 3) == 0) p.softcap = 2.0f;
  if (draw(0, 7) == 0) p.scale = -0.1f;
  const int sequences = draw(1, 4);
  for (int b = 0; b < sequences; ++b) {
    const int rows = b == 0 ? draw(17, 90) : draw(0, 2) == 0 ? 0 : draw(1, 60);
    p.sequences.push_back({rows, draw(0, 2) == 0 ? rows : draw(0, 500)});
  }
  return p;
}

/// More sequences than a warp has lanes, some without rows or keys.
TEST(HopperEmulation, ManySequences) {
  EmulatedCall p;
  p.heads = 2;
  p.head_dim = p.head_dim_v = 64;
  p.mask = MaskKind::kCausal;
  p.multiprocessors = 5;
  for (int b = 0; b < 70; ++b) {
    p.sequences.push_back({b % 9 == 4 ? 0
                           : b == 0   ? 30
                                      : 1 + b % 5,
                           b % 11 == 3 ? 0 : b * 37 % 150});
  }
  EXPECT_EQ(run_emulated(p, 1), "");
}

/// Several tiles, steps and tails, with each warp and some single lanes behind all others.
TEST(HopperEmulation, AnyWarpOrLaneMayComeLast) {
  EmulatedCall p;
  p.heads = 4;
  p.head_dim = p.head_dim_v = 64;
  p.page_size = 32;
  p.mask = MaskKind::kCausal;
  p.multiprocessors = 1;
  p.sequences = {{70, 300}, {10, 0}, {20, 140}};
  for (int warp = 0; warp < kHopperThreads / 32; ++warp) {
    for (const emulator::Starved starved :
         {emulator::Starved{32 * warp, 32}, emulator::Starved{32 * warp, 1},
          emulator::Starved{32 * warp + 13, 1}, emulator::Starved{32 * warp + 31, 1}}) {
      emulated_starved = starved;
      EXPECT_EQ(run_emulated(p, 1, 11), "") << starved.first << " " << starved.count;
    }
  }
  emulated_starved = {};
}

/// ATTN_EMULATED_CALLS raises their number.
TEST(HopperEmulation, RandomCalls) {
  for (std::uint64_t seed = 0; seed < emulated_calls(); ++seed) {
    const EmulatedCall p = random_call(seed);
    EXPECT_EQ(run_emulated(p, seed, 7), "") << seed << ": " << p.text();
  }
}

}  // namespace
}  // namespace attn::gpu
