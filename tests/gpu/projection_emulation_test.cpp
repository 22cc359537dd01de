// The Hopper projection kernel itself, its source and its host code, on an emulated block
// (emulator/), to the bit (projection_problem.h).
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <random>
#include <string>

#include "tests/gpu/emulator/device.h"
// After the emulator: kernel source.
#include "gpu/kernels/projection_hopper.cuh"
#include "gpu/kernels/projection_hopper.h"
#include "tests/gpu/projection_problem.h"

namespace attn::gpu {

std::uint64_t projection_seed = 0;
std::string projection_mistake;
emulator::Starved projection_starved;

template <int kHeadDim>
void launch_projection(const ProjectionMaps& maps, const ProjectionCall& call, int blocks,
                       cudaStream_t) {
  static_assert(kProjectionSharedBytes<Bf16> <= kEmulatedShared);
  projection_mistake =
      emulator::run(blocks, kProjectionThreads, projection_seed, projection_starved, [&] {
        if (call.a.type == Type::kBFloat16) {
          projection_hopper_kernel<Bf16, kHeadDim>(maps.x, maps.w, call);
        } else {
          projection_hopper_kernel<Half, kHeadDim>(maps.x, maps.w, call);
        }
      });
}
template void launch_projection<64>(const ProjectionMaps&, const ProjectionCall&, int,
                                    cudaStream_t);
template void launch_projection<128>(const ProjectionMaps&, const ProjectionCall&, int,
                                     cudaStream_t);

namespace {

/// "" when everything is right and nothing else was written.
std::string run(const Problem& p, std::uint64_t seed) {
  const Memory m(p, seed);
  Outputs got(p, m.tokens, m.pages);
  Outputs wanted = got;
  if (const std::string off = expect(p, m, wanted); !off.empty()) return off;
  const ProjectionShape shape{p.type,     p.type,   false,         p.heads, p.kv_heads,
                              p.head_dim, p.rotary, p.interleaved, p.hidden};
  const ProjectionPlan plan =
      plan_projection(shape, ProjectionUse::kAlways, p.multiprocessors, m.tokens);
  if (!plan.taken) return "refused: " + plan.refusal;
  projection_seed = seed;
  projection_hopper(product_of(p, m, got), arguments_of(p, m, got), plan, nullptr);
  return projection_mistake.empty() ? compare(got, wanted, p.type) : projection_mistake;
}

TEST(ProjectionEmulation, OneTile) {
  Problem p;
  p.heads = 2;
  p.sequences = {{128 - kBehind, 0}};
  p.kv_heads = 1;
  EXPECT_EQ(run(p, 1), "");
}

TEST(ProjectionEmulation, HalvesNormBiasAndTaps) {
  Problem p;
  p.interleaved = false;
  p.norm = p.bias = p.taps = true;
  p.hidden = 72;
  p.sequences = {{70, 5}, {0, 9}, {80, 31}};
  for (const int head_dim : {64, 128}) {
    p.head_dim = p.rotary = head_dim;
    EXPECT_EQ(run(p, 2), "") << p.text();
  }
}

/// What is held within 0 is 0, whatever the sums are, and so is what the norm makes of it.
TEST(ProjectionEmulation, ABoundOfZeroLeavesZeros) {
  Problem p;
  p.bias = p.taps = true;
  p.head_dim = p.rotary = 64;
  p.hidden = 72;
  p.sequences = {{70, 5}, {0, 9}, {80, 31}};
  p.clip = 0.0f;
  for (const bool norm : {false, true}) {
    p.norm = norm;
    EXPECT_EQ(run(p, 4), "") << p.text();
  }
}

TEST(HeldWithin, ABoundOfZeroIsOneAndInfinityIsNone) {
  const float none = kNoBound;
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(held_within(3.0f, 0.0f), 0.0f);
  EXPECT_EQ(held_within(-3.0f, 0.0f), 0.0f);
  EXPECT_EQ(held_within(-3.0f, 2.0f), -2.0f);
  for (const float y : {3e38f, none, -none}) EXPECT_EQ(held_within(y, none), y);
  EXPECT_TRUE(std::isnan(held_within(nan, 0.0f)));
  EXPECT_EQ(GemmArguments().clip, none);
}

/// More steps than stages, several tiles a block; each warp and some single lanes behind all
/// others.
TEST(ProjectionEmulation, AnyWarpOrLaneMayComeLast) {
  Problem p;
  p.head_dim = p.rotary = 64;
  p.heads = 3;
  p.hidden = 6 * 64;
  p.norm = p.taps = true;
  p.multiprocessors = 1;
  p.sequences = {{90, 3}, {60, 0}};
  for (int warp = 0; warp < kProjectionThreads / 32; ++warp) {
    if (warp > 1 && warp < 4) continue;  // idle
    for (const emulator::Starved starved :
         {emulator::Starved{32 * warp, 32}, emulator::Starved{32 * warp + warp * 7 % 32, 1}}) {
      projection_starved = starved;
      EXPECT_EQ(run(p, 3), "") << starved.first << " " << starved.count;
    }
  }
  projection_starved = {};
}

Problem random_problem(std::uint64_t seed) {
  std::mt19937_64 random(seed);
  const auto draw = [&](int low, int high) {
    return std::uniform_int_distribution<int>(low, high)(random);
  };
  Problem p = draw_layer(random, seed, 3, 50);
  p.multiprocessors = draw(1, 3);
  const int sequences = draw(1, 4);
  for (int b = 0; b < sequences; ++b) {
    p.sequences.push_back({draw(0, 3) == 0 ? 0 : draw(1, 90), draw(0, 60)});
  }
  return p;
}

/// ATTN_EMULATED_CALLS raises their number.
TEST(ProjectionEmulation, RandomCalls) {
  const char* const wanted = std::getenv("ATTN_EMULATED_CALLS");
  const std::uint64_t calls = wanted != nullptr ? std::strtoull(wanted, nullptr, 10) : 24;
  for (std::uint64_t seed = 0; seed < calls; ++seed) {
    const Problem p = random_problem(seed);
    EXPECT_EQ(run(p, seed), "") << seed << ": " << p.text();
  }
}

}  // namespace
}  // namespace attn::gpu
