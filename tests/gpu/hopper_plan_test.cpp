// Which calls the Hopper prefill kernel takes, and why not: host code, tested without a device.
#include <gtest/gtest.h>

#include <cstdint>
#include <string>

#include "gpu/kernels/attention_hopper.h"
#include "gpu/kernels/hopper_work.h"
#include "reference/core/error.h"

namespace attn::gpu {
namespace {

constexpr int kMultiprocessors = 132;

HopperShape shape(std::int64_t head_dim = 128, std::int64_t heads = 32, std::int64_t kv_heads = 8) {
  HopperShape s;
  s.type = s.cache_type = Type::kBFloat16;
  s.num_heads = heads;
  s.num_kv_heads = kv_heads;
  s.head_dim = s.head_dim_v = head_dim;
  s.page_size = 64;
  return s;
}

TEST(HopperRefusal, TakesSixteenBitTypesHeadSizesAndPagesOfEights) {
  for (const Type type : {Type::kBFloat16, Type::kFloat16}) {
    for (const std::int64_t d : {8, 40, 64, 72, 80, 96, 112, 128, 192, 256}) {
      HopperShape s = shape(d);
      s.type = s.cache_type = type;
      EXPECT_EQ(hopper_refusal(s), "") << d;
    }
  }
  for (const std::int64_t page : {8, 16, 24, 48, 64, 128, 256, 1024}) {
    HopperShape s = shape();
    s.page_size = page;
    EXPECT_EQ(hopper_refusal(s), "") << page;
  }
  EXPECT_EQ(hopper_refusal(shape(128, 15, 3)), "");  // a group of 5: a head a tile
}

TEST(HopperRefusal, TakesCodesOfHeadSizesOfSixteens) {
  for (const Type type : {Type::kBFloat16, Type::kFloat16}) {
    for (const std::int64_t d : {16, 48, 64, 80, 112, 128, 192, 256}) {
      HopperShape s = shape(d);
      s.type = type;
      s.cache_type = Type::kFloat8E4M3;
      EXPECT_EQ(hopper_refusal(s), "") << d;
      s.token_scales = true;
      EXPECT_EQ(hopper_refusal(s),
                "scales of codes by token and head are not implemented, those by tensor or head "
                "are");
    }
  }
  HopperShape s = shape(72);
  s.cache_type = Type::kFloat8E4M3;
  EXPECT_EQ(hopper_refusal(s), "head_dim 72 and 72 of codes are not multiples of 16");
  s = shape(80);
  s.cache_type = Type::kFloat8E4M3;
  s.head_dim_v = 72;
  EXPECT_EQ(hopper_refusal(s), "head_dim 80 and 72 of codes are not multiples of 16");
}

TEST(HopperRefusal, TakesProductsOfCodesUpToAHeadOf128) {
  HopperShape s = shape();
  s.fp8 = true;
  EXPECT_EQ(hopper_refusal(s), "products of codes want a cache of e4m3 codes");
  s.cache_type = Type::kFloat8E4M3;
  for (const std::int64_t d : {16, 48, 64, 80, 112, 128}) {
    s.head_dim = s.head_dim_v = d;
    EXPECT_EQ(hopper_refusal(s), "") << d;
  }
  const HopperPlan plan = plan_hopper(s, 132, 2, 500, 500);
  EXPECT_TRUE(plan.taken && plan.fp8);
  s.head_dim = s.head_dim_v = 144;
  EXPECT_EQ(hopper_refusal(s),
            "head_dim 144 is not implemented for products of codes, up to 128 is");
  s.head_dim = s.head_dim_v = 72;
  EXPECT_EQ(hopper_refusal(s), "head_dim 72 and 72 of codes are not multiples of 16");
  s.head_dim = s.head_dim_v = 64;
  s.token_scales = true;
  EXPECT_EQ(hopper_refusal(s),
            "scales of codes by token and head are not implemented, those by tensor or head are");
}

TEST(HopperRefusal, SaysWhatItDoesNotTake) {
  HopperShape s = shape();
  s.type = s.cache_type = Type::kFloat32;
  EXPECT_EQ(hopper_refusal(s), "activations are neither bfloat16 nor float16");
  s = shape();
  s.cache_type = Type::kFloat16;
  EXPECT_EQ(hopper_refusal(s), "the cache has neither the type of the activations nor e4m3 codes");
  EXPECT_EQ(hopper_refusal(shape(20)), "head_dim 20 and 20 are not multiples of 8 up to 256");
  EXPECT_EQ(hopper_refusal(shape(264)), "head_dim 264 and 264 are not multiples of 8 up to 256");
  s = shape(192);
  s.head_dim_v = 128;
  EXPECT_EQ(hopper_refusal(s), "head_dim 192 and 128 do not fill as many slabs of 64 columns");
  s = shape();
  s.page_size = 12;
  EXPECT_EQ(hopper_refusal(s), "page_size 12 is no multiple of 8");
  s = shape();
  s.mask_tensor = true;
  EXPECT_EQ(hopper_refusal(s), "a mask tensor is not implemented");
  s = shape();
  s.fixed_splits = 3;
  EXPECT_EQ(hopper_refusal(s), "a fixed number of splits is not implemented");
}

TEST(HopperPlan, TakesWhatDoesNotDecode) {
  const auto taken = [](const HopperShape& s, std::int64_t batch, std::int64_t rows,
                        std::int64_t keys) {
    return plan_hopper(s, kMultiprocessors, batch, rows, keys).taken;
  };
  EXPECT_TRUE(taken(shape(), 1, 4096, 4096));
  EXPECT_TRUE(taken(shape(), 1, 5, 4096));
  EXPECT_FALSE(taken(shape(), 1, 4, 4096));  // 16 packed rows
  EXPECT_FALSE(taken(shape(128, 15, 3), 1, 3, 4096));
  EXPECT_TRUE(taken(shape(128, 15, 3), 1, 4, 4096));
  EXPECT_TRUE(taken(shape(), kHopperMostSequences, 100, 100));
  EXPECT_FALSE(taken(shape(), kHopperMostSequences + 1, 100, 100));
  EXPECT_FALSE(taken(shape(), 0, 0, 0));
  EXPECT_FALSE(taken(shape(), 1, 100, 0));  // no pool
  EXPECT_FALSE(taken(shape(), 1, 100, std::int64_t{1} << 30));
  HopperShape codes = shape();
  codes.cache_type = Type::kFloat8E4M3;
  EXPECT_TRUE(taken(codes, 1, 4096, 4096));  // "prefill B1 S4096 32/8 causal fp8 cache"
  HopperShape refused = shape();
  refused.page_size = 7;
  EXPECT_FALSE(taken(refused, 1, 4096, 4096));
}

/// Before anything is asked of a device.
TEST(HopperPlan, RefusesCodesThatLieBetweenLoads) {
  AttentionArguments a;
  a.type = Type::kBFloat16;
  a.num_heads = a.num_kv_heads = 1;
  a.head_dim = a.head_dim_v = 64;
  a.batch.tokens = 20;
  a.cache.type = Type::kFloat8E4M3;
  a.cache.page_size = 16;
  a.cache.k_token_stride = a.cache.v_token_stride = 64;
  a.cache.k_head_stride = a.cache.v_head_stride = 64;
  a.cache.k_page_stride = a.cache.v_page_stride = 1024;
  const auto refusal = [](const AttentionArguments& arguments) -> std::string {
    try {
      attention_hopper(arguments, {}, nullptr, nullptr, nullptr);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  alignas(16) static unsigned char pool[32];
  for (const int which : {0, 1, 2}) {
    AttentionArguments b = a;
    b.cache.k = pool + (which == 0 ? 8 : 0);
    b.cache.v = pool;
    if (which == 1) b.cache.v_token_stride = 72;
    if (which == 2) b.cache.k_token_stride = (std::int64_t{1} << 28) + 16;
    EXPECT_NE(refusal(b).find("multiples of 16 bytes"), std::string::npos) << refusal(b);
  }
}

TEST(HopperPlan, HasABlockForEachMultiprocessorOrTile) {
  EXPECT_EQ(plan_hopper(shape(), kMultiprocessors, 1, 4096, 4096).blocks, kMultiprocessors);
  // 32 packed rows of 8 units.
  EXPECT_EQ(plan_hopper(shape(), kMultiprocessors, 1, 8, 4096).blocks, 8);
  EXPECT_EQ(plan_hopper(shape(), kMultiprocessors, 3, 33, 4096).blocks, 3 * 8 * 2);
}

TEST(HopperPlan, SectionsKeepKeysAndValuesInTheL2) {
  // 2 MB a kv head at 4096 keys, of which 32 MB hold 15; 8 MB at 16384.
  EXPECT_EQ(plan_hopper(shape(), kMultiprocessors, 1, 4096, 4096).section, 8);
  EXPECT_EQ(plan_hopper(shape(), kMultiprocessors, 1, 16384, 16384).section, 3);
  EXPECT_EQ(plan_hopper(shape(), kMultiprocessors, 1, 1 << 20, 1 << 20).section, 1);
  HopperShape codes = shape();
  codes.cache_type = Type::kFloat8E4M3;
  EXPECT_EQ(plan_hopper(codes, kMultiprocessors, 1, 16384, 16384).section, 7);
  // Five units a kv head where the group is not packed.
  EXPECT_EQ(plan_hopper(shape(128, 15, 3), kMultiprocessors, 1, 65536, 65536).section, 5);
}

/// From four tiles of packed rows of a kv head on codes are widened once; products of codes have
/// their values turned always. Sizes: 128 keys a step, and 64 of wide heads, whose three slabs go
/// to the instance of four.
TEST(HopperPlan, HasImagesOfCodesThatManyTilesWant) {
  HopperShape codes = shape();  // 32 heads, 8 kv heads of 128
  codes.cache_type = Type::kFloat8E4M3;
  const auto plan = [&](std::int64_t rows, std::int64_t keys, std::int64_t batch = 2) {
    return plan_hopper(codes, kMultiprocessors, batch, rows, keys);
  };
  EXPECT_EQ(plan(96, 1000).image_bytes(), 0u);
  EXPECT_EQ(plan(97, 1000).image_steps, 8);
  EXPECT_EQ(plan(97, 1000).key_image_bytes, std::size_t{2 * 8 * 8 * 128 * 128 * 2});
  EXPECT_EQ(plan(97, 1000).value_image_bytes, plan(97, 1000).key_image_bytes);
  EXPECT_EQ(plan(97, 16384, 16).image_bytes(), std::size_t{1} << 30);
  EXPECT_EQ(plan(97, 16385, 16).image_bytes(), 0u);
  EXPECT_TRUE(plan(97, 16385, 16).taken);
  codes.head_dim = codes.head_dim_v = 192;
  EXPECT_EQ(plan(97, 1000).image_steps, 16);
  EXPECT_EQ(plan(97, 1000).key_image_bytes, std::size_t{2 * 8 * 16 * 64 * 256 * 2});
  codes.head_dim = codes.head_dim_v = 128;
  codes.fp8 = true;
  EXPECT_EQ(plan(17, 129).key_image_bytes, 0u);
  EXPECT_EQ(plan(17, 129).value_image_bytes, std::size_t{2 * 8 * 2 * 128 * 128});
  EXPECT_TRUE(plan(17, 32'768, 32).fp8);
  EXPECT_TRUE(plan(17, 32'769, 32).taken);
  EXPECT_FALSE(plan(17, 32'769, 32).fp8);
  HopperShape typed = shape();
  EXPECT_EQ(plan_hopper(typed, kMultiprocessors, 1, 4096, 4096).image_bytes(), 0u);
}

TEST(HopperPlan, PacksGroupsThatDivideAWarpgroupsRows) {
  for (const int group : {1, 2, 4, 8, 16, 32, 64}) EXPECT_EQ(hopper_pack(group), group);
  for (const int group : {3, 5, 6, 7, 12, 48, 128}) EXPECT_EQ(hopper_pack(group), 1);
}

}  // namespace
}  // namespace attn::gpu
