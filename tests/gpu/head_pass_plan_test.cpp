// Which passes over the heads head_pass_rows takes, and with how many warps: host code, tested
// without a device.
#include "gpu/kernels/head_pass_plan.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <string>

#include "tests/gpu/head_pass_problem.h"

namespace attn::gpu {
namespace {

/// Of an address: plans look at alignments alone.
std::byte* address(std::uintptr_t at) { return reinterpret_cast<std::byte*>(at); }
constexpr std::uintptr_t kMemory = 1 << 20;

HeadPassArguments llama(std::int64_t tokens) {
  HeadPassCase c;
  c.heads = 32;
  c.kv_heads = 8;
  c.page_size = 64;
  c.norm = c.taps = true;
  HeadPassArguments a = HeadPassMemory(c, 0).arguments(address(kMemory));
  a.batch.tokens = tokens;
  return a;
}

std::string refusal(const std::function<void(HeadPassArguments&)>& change) {
  HeadPassArguments a = llama(4096);
  change(a);
  const HeadPassPlan plan = plan_head_pass(a);
  EXPECT_EQ(plan.rows(), plan.warps > 0);
  return std::string(plan.refusal);
}

TEST(HeadPassPlan, TakesSixteenBitsOfTheUsualHeads) {
  EXPECT_EQ(refusal([](auto&) {}), "");
  EXPECT_EQ(refusal([](auto& a) { a.type = a.cache.type = Type::kFloat16; }), "");
  EXPECT_EQ(refusal([](auto& a) { a.cache.type = Type::kFloat8E4M3; }), "");
  EXPECT_EQ(refusal([](auto& a) { a.norm = false; }), "");
  EXPECT_EQ(refusal([](auto& a) { a.interleaved = false; }), "");
  EXPECT_EQ(refusal([](auto& a) { a.rotary_dim = 40; }), "");
  EXPECT_EQ(refusal([](auto& a) { a.cache.page_size = 7; }), "");
  EXPECT_EQ(refusal([](auto& a) {
              a.num_heads = 0;
              a.q = nullptr;
            }),
            "");
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    const HeadPassMemory problem(draw_head_pass(seed, 9), seed);
    EXPECT_EQ(plan_head_pass(problem.arguments(address(kMemory))).refusal, "") << seed;
  }
}

TEST(HeadPassPlan, LeavesTheRestToTheGeneralKernel) {
  const std::string types = "activations are neither bfloat16 nor float16";
  EXPECT_EQ(refusal([](auto& a) { a.type = a.cache.type = Type::kFloat32; }), types);
  const std::string sizes = "head_dim is none of 64, 128 and 256";
  for (const int head_dim : {80, 96, 512}) {
    EXPECT_EQ(refusal([&](auto& a) { a.head_dim = head_dim; }), sizes);
  }
  const std::string steps = "only some of the steps";
  EXPECT_EQ(refusal([](auto& a) { a.rope = false; }), steps);
  EXPECT_EQ(refusal([](auto& a) { a.store = false; }), steps);
  const std::string apart = "q, k and v are not beside each other";
  EXPECT_EQ(refusal([](auto& a) { a.q = nullptr; }), apart);
  EXPECT_EQ(refusal([](auto& a) { a.k = nullptr; }), apart);
  EXPECT_EQ(refusal([](auto& a) { a.v = nullptr; }), apart);
  EXPECT_EQ(refusal([](auto& a) { a.q = static_cast<const char*>(a.q) - 16; }), apart);
  EXPECT_EQ(refusal([](auto& a) { a.v = static_cast<const char*>(a.v) + 16; }), apart);
  EXPECT_EQ(refusal([](auto& a) { a.q_row_stride += 8; }), apart);
  EXPECT_EQ(refusal([](auto& a) { a.v_row_stride += 8; }), apart);
  EXPECT_EQ(refusal([](auto& a) { a.rotary_dim = 60; }), "rotary_dim is no multiple of 8");
  EXPECT_EQ(refusal([](auto& a) {
              a.interleaved = false;
              a.rotary_dim = 64;
            }),
            "part of a head turns in halves");
  const std::string other = "the cache has neither codes nor the type of the activations";
  EXPECT_EQ(refusal([](auto& a) { a.cache.type = Type::kFloat16; }), other);
  EXPECT_EQ(refusal([](auto& a) { a.cache.type = Type::kFloat32; }), other);
  const std::string large = "sizes of more than an int";
  EXPECT_EQ(refusal([](auto& a) { a.batch.tokens = std::int64_t{1} << 31; }), large);
  EXPECT_EQ(refusal([](auto& a) { a.cache.page_size = std::int64_t{1} << 31; }), large);
  EXPECT_EQ(refusal([](auto& a) { a.cache.k_head_stride = std::int64_t{1} << 31; }), large);
  EXPECT_EQ(refusal([](auto& a) { a.cache.v_head_stride = std::int64_t{1} << 31; }), large);
}

TEST(HeadPassPlan, RefusesWhatWouldNotLieInVectors) {
  const std::string rows = "rows do not lie at multiples of 16 bytes";
  const auto shifted = [](auto* p) {
    return reinterpret_cast<decltype(p)>(reinterpret_cast<std::uintptr_t>(p) + 8);
  };
  EXPECT_EQ(refusal([&](auto& a) {
              a.q = shifted(a.q);
              a.k = shifted(a.k);
              a.v = shifted(a.v);
            }),
            rows);
  EXPECT_EQ(refusal([](auto& a) { a.q_row_stride = a.k_row_stride = a.v_row_stride += 4; }), rows);
  for (auto pointer :
       {&HeadPassArguments::q_normed, &HeadPassArguments::k_normed, &HeadPassArguments::q_roped,
        &HeadPassArguments::k_roped, &HeadPassArguments::padding_zeros}) {
    EXPECT_EQ(refusal([&](auto& a) { a.*pointer = shifted(a.*pointer); }), rows);
  }
  for (auto gamma : {&HeadPassArguments::q_gamma, &HeadPassArguments::k_gamma}) {
    EXPECT_EQ(refusal([&](auto& a) { a.*gamma = shifted(a.*gamma); }),
              "norm weights do not lie at multiples of 16 bytes");
  }
  EXPECT_EQ(refusal([&](auto& a) { a.freqs_cis = shifted(a.freqs_cis); }),
            "angles do not lie at multiples of 16 bytes");
  const std::string cache = "heads of the cache do not lie in whole vectors";
  for (auto pointer : {&CacheView::k, &CacheView::v}) {
    EXPECT_EQ(refusal([&](auto& a) { a.cache.*pointer = shifted(a.cache.*pointer); }), cache);
    EXPECT_EQ(refusal([&](auto& a) {  // of bytes
                a.cache.type = Type::kFloat8E4M3;
                a.cache.*pointer = shifted(a.cache.*pointer);
              }),
              "");
  }
  for (auto stride :
       {&CacheView::k_page_stride, &CacheView::k_token_stride, &CacheView::k_head_stride,
        &CacheView::v_page_stride, &CacheView::v_token_stride, &CacheView::v_head_stride}) {
    EXPECT_EQ(refusal([&](auto& a) { a.cache.*stride += 4; }), cache);
  }
}

TEST(HeadPassPlan, SharesGroupsOfHeadsOutToWarps) {
  EXPECT_EQ(plan_head_pass(llama(1)).warps, 12);  // 48 heads, 4 a group
  EXPECT_EQ(plan_head_pass(llama(kFewHeadRows)).warps, 12);
  EXPECT_EQ(plan_head_pass(llama(kFewHeadRows + 1)).warps, 4);
  for (const int kv_heads : {1, 2, 5, 8, 64}) {
    for (const int head_dim : {64, 128, 256}) {
      for (const std::int64_t tokens : {1, 5000}) {
        HeadPassCase c;
        c.head_dim = c.rotary = head_dim;
        c.kv_heads = kv_heads;
        c.heads = 2 * kv_heads;
        HeadPassArguments a = HeadPassMemory(c, 0).arguments(address(kMemory));
        a.batch.tokens = tokens;
        const HeadPassPlan plan = plan_head_pass(a);
        const int groups = (4 * kv_heads * head_dim + 511) / 512;
        EXPECT_GE(plan.warps, 1);
        EXPECT_LE(plan.warps, kMostHeadRowWarps);
        if (plan.warps == kMostHeadRowWarps) continue;
        EXPECT_LT((plan.warps - 1) * (tokens == 1 ? 1 : kHeadRowGroups), groups);
        EXPECT_GE(plan.warps * (tokens == 1 ? 1 : kHeadRowGroups), groups);
      }
    }
  }
}

}  // namespace
}  // namespace attn::gpu
