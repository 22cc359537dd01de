// The Hopper prefill kernels for caches of e4m3 codes, their sources and host code, on an emulated
// block (emulator/). Slots that nothing may read hold codes of NaN, pages behind a sequence do not
// exist, and what a thread stores is seen by wgmma once it has fenced. Products of codes as they
// lie are judged on the queries that they multiply, rounded to e4m3.
#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <random>
#include <string>

#include "gpu/kernels/hopper_work.h"
#include "tests/gpu/emulated_attention.h"

namespace attn::gpu {
namespace {

/// The kernels that take codes, by what they multiply.
enum class Multiplied { kWidened, kImages, kCodes };

class HopperCodesEmulation : public testing::TestWithParam<Multiplied> {
 protected:
  static EmulatedCall coded_call() {
    EmulatedCall p;
    p.coded = true;
    p.fp8 = GetParam() == Multiplied::kCodes;
    p.images = GetParam() == Multiplied::kImages;
    p.scales = CacheScales::kTensor;
    return p;
  }
  static EmulatedCall random_call(std::uint64_t seed);
};
INSTANTIATE_TEST_SUITE_P(Products, HopperCodesEmulation,
                         testing::Values(Multiplied::kWidened, Multiplied::kImages,
                                         Multiplied::kCodes),
                         [](const auto& way) {
                           return std::string(way.param == Multiplied::kCodes ? "of_codes"
                                              : way.param == Multiplied::kImages
                                                  ? "of_images_of_widened_codes"
                                                  : "of_widened_codes");
                         });

TEST_P(HopperCodesEmulation, OneTileAndOneStep) {
  EmulatedCall p = coded_call();
  p.sequences = {{128, 128}};
  EXPECT_EQ(run_emulated(p, 1), "");
}

TEST_P(HopperCodesEmulation, ScoresRiseFromStepToStep) {
  for (const float rise : {1.5f, 3.0f, 20.0f}) {
    for (const int head_dim : {64, 128}) {
      EXPECT_EQ(run_emulated_rise(coded_call(), rise, head_dim), "")
          << head_dim << " rise " << rise;
    }
  }
}

/// In the third step one key is far above the shift, for eight rows of a warp: of all words of
/// codes one says so, with one of its bytes.
TEST_P(HopperCodesEmulation, OneKeyAloneIsAboveTheShift) {
  EmulatedCall p = coded_call();
  p.key_scales = {0.1f};
  p.lone_keys = true;
  p.sequences = {{256, 384}};
  EXPECT_EQ(run_emulated(p, 1), "");
}

/// Then a row's scores have a factor that is too small for float32.
TEST_P(HopperCodesEmulation, QueriesOfZerosBesideTinyScales) {
  for (const float scale : {1e-6f, 1e-7f, 1e-8f, 1e-30f}) {
    EmulatedCall p = coded_call();
    p.key_scales = {scale};
    p.level_rows = 0;
    p.mask = MaskKind::kCausal;
    p.sequences = {{128, 300}};
    EXPECT_EQ(run_emulated(p, 2), "") << scale;
  }
}

/// All codes but those of NaN, beside queries of either type. Of one key the output is the value.
TEST_P(HopperCodesEmulation, EveryCodeOfKeysAndValues) {
  for (const Type type : {Type::kBFloat16, Type::kFloat16}) {
    for (const int keys : {1, 200}) {
      EmulatedCall p = coded_call();
      p.type = type;
      p.any_codes = true;
      p.kv_heads = p.heads = 4;
      p.sequences = {{40, keys}};
      EXPECT_EQ(run_emulated(p, 5), "") << p.text();
    }
  }
}

TEST_P(HopperCodesEmulation, StepsTailsAndTiles) {
  for (const int keys : {1, 7, 64, 127, 129, 300, 384, 391}) {
    EmulatedCall p = coded_call();
    p.mask = MaskKind::kCausal;
    p.sequences = {{150, keys}};
    EXPECT_EQ(run_emulated(p, static_cast<std::uint64_t>(keys)), "") << p.text();
  }
}

TEST_P(HopperCodesEmulation, EitherRowOfAThreadRescales) {
  for (const int level : {0, 1}) {
    EmulatedCall p = coded_call();
    p.sequences = {{128, 500}};
    p.level_rows = level;
    EXPECT_EQ(run_emulated(p, 1), "") << level;
  }
}

/// A head may have any scale; masked keys stay hidden beside scores that are all zero or turned.
TEST_P(HopperCodesEmulation, ScalesThatAreNotPositive) {
  EmulatedCall p = coded_call();
  p.scales = CacheScales::kHead;
  p.kv_heads = 3;
  p.heads = 6;
  p.key_scales = {0.0f, -0.05f, 0.05f};
  p.mask = MaskKind::kCausal;
  p.sequences = {{100, 170}};
  EXPECT_EQ(run_emulated(p, 2), "");
}

EmulatedCall HopperCodesEmulation::random_call(std::uint64_t seed) {
  std::mt19937_64 random(seed);
  const auto draw = [&](int low, int high) {
    return std::uniform_int_distribution<int>(low, high)(random);
  };
  EmulatedCall p = coded_call();
  p.type = draw(0, 2) == 0 ? Type::kFloat16 : Type::kBFloat16;
  p.scales = std::array{CacheScales::kTensor, CacheScales::kHead, CacheScales::kHead,
                        CacheScales::kNone}[static_cast<std::size_t>(draw(0, 3))];
  p.any_codes = p.scales != CacheScales::kNone && draw(0, 3) == 0;
  p.kv_heads = draw(1, 3);
  p.heads = p.kv_heads * std::array{1, 2, 3, 4, 8}[static_cast<std::size_t>(draw(0, 4))];
  p.head_dim = p.fp8 ? std::array{128, 64, 112, 80, 128, 48, 96, 16}[seed % 8]
                     : std::array{128, 64, 256, 80, 192, 48, 144, 16}[seed % 8];
  p.head_dim_v = p.head_dim % 64 > 16 && draw(0, 1) == 0 ? p.head_dim - 16 : p.head_dim;
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

/// More sequences than a warp has lanes, some without rows or keys: tiles without steps too.
TEST_P(HopperCodesEmulation, ManySequences) {
  EmulatedCall p = coded_call();
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

/// Tiles of more steps than the ring has, and of none with such behind them (the first rows of 150
/// with 50 keys), with each warp and some single lanes behind all others.
TEST_P(HopperCodesEmulation, AnyWarpOrLaneMayComeLast) {
  EmulatedCall p = coded_call();
  p.heads = 4;
  p.head_dim = p.head_dim_v = 64;
  p.page_size = 32;
  p.mask = MaskKind::kCausal;
  p.multiprocessors = 1;
  p.sequences = {{40, 300}, {10, 0}, {3, 600}, {5, 0}, {150, 50}, {20, 40}};
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
TEST_P(HopperCodesEmulation, RandomCalls) {
  for (std::uint64_t seed = 0; seed < emulated_calls(); ++seed) {
    const EmulatedCall p = random_call(seed);
    EXPECT_EQ(run_emulated(p, seed, 7), "") << seed << ": " << p.text();
  }
}

}  // namespace
}  // namespace attn::gpu
