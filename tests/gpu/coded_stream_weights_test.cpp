// The streamed products of gptq's weights of 4 bits, likewise on an emulated block. x is of small
// whole numbers and weights are multiples of one unit, so that sums are exact in any order and
// results equal to the bit what the weights are that the layer declares: rounded to its type.
#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <random>
#include <string>

#include "tests/gpu/gptq_problem.h"
// After the emulator: kernel source.
#include "gpu/kernels/coded_stream.h"
#include "gpu/kernels/coded_stream_one_weights.cuh"

namespace attn::gpu {
namespace {

using namespace gptq_test;

/// As launch_stream_weights() does.
template <typename T>
void run_instance(const CodedGemmArguments& a, const CodedStreamPlan& plan) {
  const bool one_scale = a.w.group_shift >= 6;
  if (a.m > kMostUnheldRows) {
    return one_scale ? coded_stream_weights<T, true, 2>(a, plan.tiles)
                     : coded_stream_weights<T, false, 2>(a, plan.tiles);
  }
  return one_scale ? coded_stream_weights<T, true, 1>(a, plan.tiles)
                   : coded_stream_weights<T, false, 1>(a, plan.tiles);
}
void run_one_row(const CodedGemmArguments& a, const CodedStreamPlan& plan) {
  const auto run = [&](auto kernel) { kernel(a, plan.tiles, plan.early); };
  if (a.x_type == Type::kFloat16) return run(coded_stream_one_weights<Half, false>);
  if (a.w.small_scales) return run(coded_stream_one_weights<Bf16, true>);
  run(coded_stream_one_weights<Bf16, false>);
}
std::string run_kernel(const CodedGemmArguments& a, const CodedStreamPlan& plan,
                       std::uint64_t seed) {
  return emulator::run(plan.blocks, kStreamThreads, seed, {}, [&] {
    if (plan.one_row) return run_one_row(a, plan);
    if (a.x_type == Type::kFloat16) return run_instance<Half>(a, plan);
    run_instance<Bf16>(a, plan);
  });
}

/// "" or the first mistake of a product.
std::string mistake_in(const Problem& p, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  const Weight weight(p, random);
  Operands operands(p, random);
  const CodedStreamPlan plan =
      plan_coded_stream(weight.matrix, p.rows, p.width, 0, p.multiprocessors, kEmulatedShared);
  if (!plan.taken) return "not taken";
  const CodedGemmArguments a = operands.arguments(p, weight);
  emulator::copy_only_from(weight.places);
  if (const std::string wrong = run_kernel(a, plan, seed); !wrong.empty()) return wrong;
  if (emulator::wrote_behind(plan.shared_bytes)) return "more shared memory than planned";
  return operands.mistake(p, weight);
}

TEST(CodedStreamWeights, EqualsTheDeclaredWeightsToTheBit) {
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    std::mt19937_64 random(seed ^ 0x6970);
    const auto draw = [&](int from, int to) {
      return std::uniform_int_distribution<int>(from, to)(random);
    };
    Problem p;
    p.group = std::array{16, 32, 64, 128, 256, 512, -1}.at(seed % 7);
    const int unit = p.group > 0 && p.group < 64 ? p.group : p.group > 0 ? p.group : 8;
    const bool deep = seed / 7 % 3 == 0;
    p.width = unit * draw(1, std::max(1, (deep ? 1024 : 600) / unit));
    if (deep && p.width < 512) p.width = (512 + unit - 1) / unit * unit;
    if (p.group >= p.width) p.group = -1;
    p.out = 8 * (deep ? draw(14, 16) : draw(1, 12));
    p.rows = draw(1, kMostWeightStreamRows);
    p.type = random() % 2 == 0 ? Type::kBFloat16 : Type::kFloat16;
    p.bias = random() % 2 == 0;
    p.clip = std::array{1.5f, 0.0f, kNoBound, kNoBound}.at(random() % 4);
    p.multiprocessors = deep ? 1 : draw(1, 5);
    // All far below a half, just below it, and some above.
    p.unit = std::array{0x1p-12, 0x1p-9, 0x1p-8}.at(random() % 3);
    EXPECT_EQ(mistake_in(p, seed), "") << "seed " << seed << ": " << p.text();
  }
}

/// One row of x by the kernel of its own.
TEST(CodedStreamWeights, TakesOneRowByItself) {
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    std::mt19937_64 random(seed ^ 0x0e5);
    Problem p;
    p.group = std::array{64, 128, 256, 512, -1}.at(seed % 5);
    p.width = kStreamUnit * std::uniform_int_distribution<int>(1, seed % 7 == 0 ? 24 : 6)(random);
    if (p.group > kStreamUnit) p.width = (p.width + p.group - 1) / p.group * p.group;
    if (p.group >= p.width) p.group = -1;
    p.out = 8 * std::uniform_int_distribution<int>(1, 8)(random);
    p.type = random() % 3 != 0 ? Type::kBFloat16 : Type::kFloat16;
    p.bias = random() % 2 == 0;
    p.unit = std::array{0x1p-12, 0x1p-9, 0x1p-8}.at(random() % 3);
    p.multiprocessors = std::uniform_int_distribution<int>(1, 4)(random);
    EXPECT_EQ(mistake_in(p, seed), "") << "seed " << seed << ": " << p.text();
  }
}

TEST(CodedStreamWeights, TakesEachNumberOfRows) {
  for (int rows = 1; rows <= kMostWeightStreamRows; ++rows) {
    for (const int group : {32, 128}) {
      Problem p;
      p.rows = rows;
      p.group = group;
      p.width = 640;
      EXPECT_EQ(mistake_in(p, 5), "") << p.text();
    }
  }
}

/// More stages than warps: a warp has several of the same tile.
TEST(CodedStreamWeights, AddsUpAWarpsStagesOfATile) {
  for (const int rows : {2, 9}) {
    Problem p;
    p.rows = rows;
    p.width = 8192;
    p.out = 40;
    EXPECT_EQ(mistake_in(p, 6), "") << p.text();
  }
}

TEST(CodedStreamWeights, SaysWhatItTakes) {
  std::mt19937_64 random(1);
  CodedMatrix w = Weight(Problem{}, random).matrix;
  w.rows = 6144;
  w.chunks = 64;
  const auto plan_of = [&](std::int64_t m, std::int64_t block) {
    return plan_coded_stream(w, m, 4096, block, 132, 227 * 1024);
  };
  EXPECT_TRUE(plan_of(1, 0).taken);
  EXPECT_TRUE(plan_of(8, 0).taken);
  EXPECT_TRUE(plan_of(8, 0).fused);
  EXPECT_EQ(plan_of(8, 0).image_bytes, 0U);
  EXPECT_EQ(plan_of(2, 0).blocks, 128);
  EXPECT_LE(2 * (plan_of(2, 0).shared_bytes + 1024), 228U * 1024);
  EXPECT_TRUE(plan_of(16, 0).taken);
  EXPECT_EQ(plan_of(16, 0).tiles, 3);
  EXPECT_FALSE(plan_of(17, 0).taken);
  EXPECT_FALSE(plan_of(1, 256).taken);  // codes of x
  const auto one_row = [&](std::int64_t m, std::int64_t k) {
    return plan_coded_stream(w, m, k, 0, 132, 227 * 1024);
  };
  EXPECT_TRUE(one_row(1, 4096).one_row);
  EXPECT_EQ(one_row(1, 4096).blocks, 192);
  EXPECT_EQ(one_row(1, 4096).early, 72);
  w.group_shift = 6;
  EXPECT_FALSE(one_row(1, 4096).one_row);
  w.group_shift = 7;
  w.rows = 4096;  // 256 blocks: 8 that come early would ask for too many
  EXPECT_EQ(one_row(1, 4096).early, 0);
  w.rows = 6144;
  EXPECT_FALSE(one_row(2, 4096).one_row);
  EXPECT_FALSE(one_row(1, 4096 - 128).one_row);
  EXPECT_TRUE(one_row(1, 4096 - 128).taken);
  EXPECT_TRUE(stream_pays(w, 1, 4096, 0));
  EXPECT_FALSE(stream_pays(w, 2, 4096, 0));
  EXPECT_FALSE(stream_pays(w, 1, 4096 - 128, 0));
  w.kind = CodeKind::kI8;
  EXPECT_NE(stream_refusal(w), "");
}

}  // namespace
}  // namespace attn::gpu
