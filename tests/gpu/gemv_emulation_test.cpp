// The kernel for few rows itself, its source and its host code, on emulated blocks and clusters
// (emulator/): q, k and v to the bit (projection_problem.h), other products against exact sums.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

#include "tests/gpu/emulator/device.h"
// After the emulator: kernel source.
#include "gpu/kernels/gemv.cuh"
#include "gpu/kernels/gemv.h"
#include "gpu/kernels/projection_hopper.h"
#include "tests/gpu/fenced.h"
#include "tests/gpu/projection_problem.h"

namespace attn::gpu {

std::uint64_t gemv_seed = 0;
std::string gemv_mistake;
emulator::Starved gemv_starved;

void launch_gemv(const GemvCall& call, bool heads, int cluster, cudaStream_t) {
  static_assert(sizeof(GemvShared<2>) <= emulator::kClusterShared);
  const auto run = [&](auto type, auto with_heads, auto tiles) {
    using T = decltype(type);
    const GemvGrid grid = gemv_grid(call, heads);
    gemv_mistake =
        emulator::run({grid.x, grid.z, cluster}, gemv_threads(tiles.value), gemv_seed, gemv_starved,
                      [&] { gemv_kernel<T, with_heads.value, tiles.value>(call); });
  };
  const auto run_type = [&](auto type) {
    constexpr std::integral_constant<int, 1> kOne;
    constexpr std::integral_constant<int, 2> kTwo;
    if (!heads) return run(type, std::false_type{}, kOne);
    gemv_tiles(call) == 1 ? run(type, std::true_type{}, kOne) : run(type, std::true_type{}, kTwo);
  };
  call.a.type == Type::kBFloat16 ? run_type(Bf16{}) : run_type(Half{});
}

namespace {

/// What the kernel before makes comes when somebody waits for it: until then x is NaN, lengths are
/// those of other sequences.
struct Late {
  Memory now;
  Fenced x, w;
  explicit Late(const Memory& m) : now(m), x(Bits(m.x.size(), kUnwritten)), w(m.w) {
    for (auto* lengths : {&now.lengths, &now.offsets})
      std::fill(lengths->begin(), lengths->end(), 0);
    emulator::previous_grid = [this, &m] {
      x.fill(m.x);
      now.lengths = m.lengths;
      now.offsets = m.offsets;
    };
  }
  ~Late() { emulator::previous_grid = nullptr; }
  Late(const Late&) = delete;
  Late& operator=(const Late&) = delete;
};

/// "" when everything is right and nothing else was written.
std::string run(const Problem& p, std::uint64_t seed) {
  const Memory m(p, seed);
  Outputs got(p, m.tokens, m.pages);
  Outputs wanted = got;
  if (const std::string off = expect(p, m, wanted); !off.empty()) return off;
  if (m.tokens > kMostGemvRows) return "too many rows";
  const ProjectionShape shape{p.type,     p.type,   false,         p.heads, p.kv_heads,
                              p.head_dim, p.rotary, p.interleaved, p.hidden};
  if (const std::string no = projection_refusal(shape); !no.empty()) return "refused: " + no;
  Late late(m);
  gemv_seed = seed;
  GemmArguments product = product_of(p, late.now, got);
  product.x = late.x.data();
  product.w = late.w.data();
  gemv_heads(product, arguments_of(p, late.now, got), nullptr);
  return gemv_mistake.empty() ? compare(got, wanted, p.type) : gemv_mistake;
}

TEST(GemvEmulation, OneRow) {
  Problem p;
  p.heads = 2;
  p.sequences = {{1, 37}};
  EXPECT_EQ(run(p, 1), "");
}

TEST(GemvEmulation, HalvesNormBiasAndTaps) {
  Problem p;
  p.interleaved = false;
  p.norm = p.bias = p.taps = true;
  p.hidden = 1096;  // the second round of steps ends within a line
  p.sequences = {{2, 5}, {0, 9}, {3, 31}};
  for (const int head_dim : {64, 128}) {
    p.head_dim = p.rotary = head_dim;
    EXPECT_EQ(run(p, 2), "") << p.text();
  }
}

/// Each warp and some single lanes behind all others.
TEST(GemvEmulation, AnyWarpOrLaneMayComeLast) {
  Problem p;
  p.heads = 2;
  p.hidden = 3 * 64;
  p.norm = p.taps = true;
  p.sequences = {{1, 3}, {2, 0}};
  for (const int tiles : {1, 2}) {
    p.head_dim = p.rotary = 64 * tiles;
    for (int warp = 0; warp < gemv_threads(tiles) / 32; ++warp) {
      for (const emulator::Starved starved :
           {emulator::Starved{32 * warp, 32}, emulator::Starved{32 * warp + warp * 7 % 32, 1}}) {
        gemv_starved = starved;
        EXPECT_EQ(run(p, 3), "") << tiles << " " << starved.first << " " << starved.count;
      }
    }
  }
  gemv_starved = {};
}

Problem random_problem(std::uint64_t seed) {
  std::mt19937_64 random(seed);
  const auto draw = [&](int low, int high) {
    return std::uniform_int_distribution<int>(low, high)(random);
  };
  Problem p = draw_layer(random, seed, 2, 200);
  int rows = static_cast<int>(kMostGemvRows) - kBehind;
  const int sequences = draw(1, 4);
  for (int b = 0; b < sequences; ++b) {
    const int mine = draw(0, rows);
    rows -= mine;
    p.sequences.push_back({mine, draw(0, 60)});
  }
  return p;
}

int calls() {  // ATTN_EMULATED_CALLS raises their number
  const char* const wanted = std::getenv("ATTN_EMULATED_CALLS");
  return wanted != nullptr ? std::atoi(wanted) : 16;
}

TEST(GemvEmulation, ABoundOfZeroLeavesZeros) {
  Problem p = random_problem(3);
  p.bias = p.taps = true;
  p.clip = 0.0f;
  EXPECT_EQ(run(p, 3), "") << p.text();
}

TEST(GemvEmulation, RandomCalls) {
  for (int seed = 0; seed < calls(); ++seed) {
    const Problem p = random_problem(static_cast<std::uint64_t>(seed));
    EXPECT_EQ(run(p, static_cast<std::uint64_t>(seed)), "") << seed << ": " << p.text();
  }
}

/// y of small whole numbers: exact sums, rounded once. Rows of y lie y_stride apart.
std::string multiply(std::uint64_t seed) {
  std::mt19937_64 random(seed);
  const auto draw = [&](int low, int high) {
    return std::uniform_int_distribution<int>(low, high)(random);
  };
  const Type type = draw(0, 1) == 0 ? Type::kBFloat16 : Type::kFloat16;
  const int m = draw(1, 8);
  const int n = draw(1, 70);
  const int k = 8 * draw(1, 200);
  const int stride = n + draw(0, 1) * 5;
  Bits x, w;
  for (int i = 0; i < m * k; ++i) x.push_back(to_bits(static_cast<float>(draw(-3, 3)), type));
  for (int i = 0; i < n * k; ++i) w.push_back(to_bits(static_cast<float>(draw(-3, 3)), type));
  std::vector<float> bias;
  for (int i = 0; i < n; ++i) bias.push_back(static_cast<float>(draw(-9, 9)) / 2);
  Bits got(at(m * stride), kUnwritten);
  Bits wanted = got;
  GemmArguments a;
  a.bias = draw(0, 1) == 0 ? bias.data() : nullptr;
  a.clip = draw(0, 2) == 0 ? 20.0f : kNoBound;
  for (int r = 0; r < m; ++r) {
    for (int c = 0; c < n; ++c) {
      float sum = a.bias != nullptr ? bias[at(c)] : 0.0f;
      for (int i = 0; i < k; ++i) {
        sum += from_bits(x[at(r * k + i)], type) * from_bits(w[at(c * k + i)], type);
      }
      sum = std::clamp(sum, -a.clip, a.clip);
      wanted[at(r * stride + c)] = to_bits(sum, type);
    }
  }
  const Fenced fenced_x(x), fenced_w(w);
  a.x = fenced_x.data();
  a.w = fenced_w.data();
  a.y = got.data();
  a.m = m;
  a.n = n;
  a.k = k;
  a.type = a.out_type = type;
  a.y_stride = stride;
  gemv_seed = seed;
  gemv(a, draw(0, 1) == 0, nullptr);
  return gemv_mistake.empty() ? compare("y", got, wanted, type) : gemv_mistake;
}

TEST(GemvEmulation, PlainProducts) {
  for (int seed = 0; seed < 2 * calls(); ++seed) {
    EXPECT_EQ(multiply(static_cast<std::uint64_t>(seed)), "") << seed;
  }
}

TEST(GemvEmulation, RefusesByName) {
  EXPECT_EQ(gemv_refusal(Type::kBFloat16, 4096), "");
  EXPECT_EQ(gemv_refusal(Type::kFloat32, 4096), "activations are neither bfloat16 nor float16");
  EXPECT_EQ(gemv_refusal(Type::kFloat16, 100), "rows of 100 are no multiple of 8");
}

}  // namespace
}  // namespace attn::gpu
