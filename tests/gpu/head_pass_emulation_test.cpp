// Both kernels of the pass over the heads, their sources and the host code that chooses, on
// emulated blocks (emulator/): what they leave is the same to the bit, and where projection_problem
// has it, what the declared roundings make of q, k and v.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

#include "tests/gpu/emulator/device.h"
// After the emulator: kernel source.
#include "gpu/kernels/head_pass_general.cuh"
#include "gpu/kernels/head_pass_plan.h"
#include "gpu/kernels/head_pass_rows.cuh"
#include "tests/gpu/fenced.h"
#include "tests/gpu/head_pass_problem.h"
#include "tests/gpu/projection_problem.h"

namespace attn::gpu {

std::string head_pass_mistake;
int general_passes = 0;

void head_pass_general(const HeadPassArguments& a, StreamHandle) {
  ++general_passes;
  const auto jobs = static_cast<int>(a.batch.tokens * (a.num_heads + 2 * a.num_kv_heads));
  const auto run = [&](auto type, auto cache) {
    head_pass_mistake =
        emulator::run((jobs + kHeadPassWarps - 1) / kHeadPassWarps, 32 * kHeadPassWarps, 1, {},
                      [&] { head_pass_kernel<decltype(type), decltype(cache), 4>(a); });
  };
  const auto run_type = [&](auto type) {
    a.cache.type == Type::kFloat8E4M3 ? run(type, E4m3{}) : run(type, type);
  };
  a.type == Type::kFloat16 ? run_type(Half{}) : run_type(Bf16{});
}

void head_pass_rows(const HeadPassArguments& a, int warps, StreamHandle) {
  const auto run = [&](auto type, auto cache, auto head_dim) {
    head_pass_mistake = emulator::run(static_cast<int>(a.batch.tokens), 32 * warps, 1, {}, [&] {
      head_rows_kernel<decltype(type), decltype(cache), head_dim.value>(a, warps);
    });
  };
  const auto run_size = [&](auto type, auto cache) {
    if (a.head_dim == 64) return run(type, cache, std::integral_constant<int, 64>{});
    if (a.head_dim == 128) return run(type, cache, std::integral_constant<int, 128>{});
    run(type, cache, std::integral_constant<int, 256>{});
  };
  const auto run_type = [&](auto type) {
    a.cache.type == Type::kFloat8E4M3 ? run_size(type, E4m3{}) : run_size(type, type);
  };
  a.type == Type::kFloat16 ? run_type(Half{}) : run_type(Bf16{});
}

namespace {

/// "" when both leave the same of all memory. `warps` 0: as planned.
std::string compare_kernels(const HeadPassCase& c, std::uint64_t seed, int warps) {
  const HeadPassMemory problem(c, seed);
  const Fenced general(problem.bytes()), rows(problem.bytes());
  head_pass_mistake.clear();
  const HeadPassArguments a = problem.arguments(rows.data());
  if (const HeadPassPlan plan = plan_head_pass(a); !plan.rows()) return std::string(plan.refusal);
  if (a.batch.tokens == 0) return "";
  head_pass_general(problem.arguments(general.data()), nullptr);
  if (!head_pass_mistake.empty()) return "general: " + head_pass_mistake;
  general_passes = 0;
  warps > 0 ? head_pass_rows(a, warps, nullptr) : head_pass(a, nullptr);
  if (!head_pass_mistake.empty()) return head_pass_mistake;
  if (general_passes > 0) return "the general kernel was taken";
  const auto all = [&](const Fenced& f) {
    return std::vector<std::byte>(f.data(), f.data() + problem.bytes().size());
  };
  if (all(general) == problem.bytes()) return "nothing was written";
  return first_difference(all(general), all(rows));
}

int calls() {  // ATTN_EMULATED_CALLS raises their number
  const char* const wanted = std::getenv("ATTN_EMULATED_CALLS");
  return wanted != nullptr ? std::atoi(wanted) : 60;
}

TEST(HeadPassEmulation, LeavesWhatTheGeneralKernelLeaves) {
  for (int seed = 0; seed < calls(); ++seed) {
    const auto n = static_cast<std::uint64_t>(seed);
    HeadPassCase c = draw_head_pass(n, 4);
    if (c.sequences[0][0] == 0) c.sequences[0][0] = 1;
    EXPECT_EQ(compare_kernels(c, n, seed % 4), "") << seed << ": " << c.text();
  }
}

/// Blocks of fewer warps than groups, a group that heads end in, and a warp without any.
TEST(HeadPassEmulation, AnyNumberOfWarpsSharesOutTheGroups) {
  for (const int head_dim : {64, 128, 256}) {
    HeadPassCase c;
    c.head_dim = c.rotary = head_dim;
    c.heads = 9;
    c.kv_heads = 3;
    c.interleaved = false;
    c.norm = true;
    c.behind = 1;
    c.sequences = {{1, 20}};
    for (int warps = 1; warps <= kMostHeadRowWarps; ++warps) {
      EXPECT_EQ(compare_kernels(c, 5, warps), "") << head_dim << ": " << warps;
    }
  }
}

/// Sums of squares in another order differ in their last bits, which few values show.
TEST(HeadPassEmulation, AddsSquaresInTheOrderOfTheGeneralKernel) {
  for (const int head_dim : {64, 128, 256}) {
    HeadPassCase c;
    c.type = c.cache_type = Type::kFloat16;
    c.head_dim = c.rotary = head_dim;
    c.heads = 16;
    c.kv_heads = 4;
    c.norm = true;
    c.sequences = {{16, 3}};
    EXPECT_EQ(compare_kernels(c, 7, 0), "") << head_dim;
  }
}

/// Quotients near and on the middles between codes, exact and rounded to them, of scales of any
/// size, and everywhere else.
TEST(HeadPassEmulation, QuickCodesAreThoseOfFloat64) {
  std::mt19937_64 random(3);
  std::array<int, 3> inexact_on_middle{};  // of normal codes, of smaller ones, of tiny scales
  for (int i = 0; i < 400'000; ++i) {
    const auto bits = static_cast<std::uint32_t>(random());
    const auto fraction = static_cast<float>(bits % 128 + 128);
    const auto odd = static_cast<float>(2 * (bits >> 8 & 7) + 1);
    const int exponent = static_cast<int>(bits >> 16 & 15);
    float x = std::ldexp(fraction, exponent - 20);
    float middle = std::ldexp(16.0f + odd, exponent - 10);
    const int kind = i % 8;
    if (kind == 1) middle = std::ldexp(odd, -10);
    if (kind == 2) x = std::ldexp(fraction, -134);
    if (kind == 2) middle = std::ldexp(16.0f + odd, exponent % 4 - 10);
    float scale = x / (kind == 3 ? std::nextafter(middle, 0.0f) : middle);
    if (kind < 3 && x / scale == middle &&
        std::fma(double{middle}, double{scale}, -double{x}) != 0) {
      ++inexact_on_middle.at(static_cast<std::size_t>(kind));
    }
    if (kind == 4) scale = std::ldexp(1.0f, exponent - 10);
    if (kind == 5) x = __uint_as_float(bits & 0xffff0000U);
    if (kind == 5) scale = __uint_as_float(static_cast<std::uint32_t>(random()) & 0x7fffffffU);
    EXPECT_EQ(quick_cache_code(x, scale).code, cache_code(x, scale).code) << x << " / " << scale;
    EXPECT_EQ(quick_cache_code(-x, scale).code, cache_code(-x, scale).code) << x << " / " << scale;
  }
  for (const int n : inexact_on_middle) EXPECT_GT(n, 1000);
}

/// The shape of the projections' tests: expectations made channel by channel.
TEST(HeadPassEmulation, LeavesWhatTheRoundingsMake) {
  for (int seed = 0; seed < calls() / 3; ++seed) {
    std::mt19937_64 random(static_cast<std::uint64_t>(seed));
    Problem p = draw_layer(random, static_cast<std::uint64_t>(seed), 4, 20);
    p.taps = true;
    p.rotary = p.rotary < 8 ? 8 : p.rotary / 8 * 8;
    p.sequences = {{1 + seed % 3, seed}, {0, 3}, {seed % 2, 5}};
    const Memory m(p, static_cast<std::uint64_t>(seed));
    Outputs got(p, m.tokens, m.pages);
    Outputs wanted = got;
    ASSERT_EQ(expect(p, m, wanted), "");
    got.qkv = wanted.qkv;
    HeadPassArguments a = arguments_of(p, m, got);
    const Fenced source(wanted.qkv);
    const auto* const rows = reinterpret_cast<const std::uint16_t*>(source.data());
    a.q = p.heads > 0 ? rows : nullptr;
    a.k = rows + p.heads * p.head_dim;
    a.v = rows + (p.heads + p.kv_heads) * p.head_dim;
    a.q_row_stride = a.k_row_stride = a.v_row_stride = p.all_heads() * p.head_dim;
    general_passes = 0;
    head_pass(a, nullptr);
    EXPECT_EQ(head_pass_mistake, "");
    EXPECT_EQ(general_passes, 0) << plan_head_pass(a).refusal;
    EXPECT_EQ(compare(got, wanted, p.type), "") << seed << ": " << p.text();
  }
}

}  // namespace
}  // namespace attn::gpu
