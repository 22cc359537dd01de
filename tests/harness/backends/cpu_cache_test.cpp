// fp8 caches in the cpu backend: the codes that a call stores, the scales, and what is read back.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "harness/backends/cpu/cache_rows.h"
#include "harness/backends/cpu/cpu_backend.h"
#include "reference/core/element.h"
#include "tests/harness/backends/test_cases.h"

namespace attn::harness::cpu {
namespace {

constexpr ScaleGranularity kGranularities[] = {ScaleGranularity::kNone, ScaleGranularity::kTensor,
                                               ScaleGranularity::kHead,
                                               ScaleGranularity::kTokenHead};

AttentionConfig with_fp8_cache(AttentionConfig config, ScaleGranularity granularity) {
  config.kv_cache.dtype = ElementType::kFloat8E4M3FN;
  config.kv_cache.scale_granularity = granularity;
  return config;
}

Trace run_cpu(const Case& c) { return make_cpu_backend({64, 1})->run(c, all_stages()); }

/// A cache of two kv heads of four channels, room for three tokens in pages of two.
KvCache small_cache(ScaleGranularity granularity, double k_scale, double v_scale) {
  AttentionConfig config = with_fp8_cache(core_config(2, 2, 4), granularity);
  config.kv_cache.page_size = 2;
  Tensor ks, vs;
  if (granularity == ScaleGranularity::kTensor) {
    ks = Tensor::scalar(ElementType::kFloat32, k_scale);
    vs = Tensor::scalar(ElementType::kFloat32, v_scale);
  } else if (granularity == ScaleGranularity::kHead) {
    const std::vector<double> k{k_scale, 2.0 * k_scale}, v{v_scale, 2.0 * v_scale};
    ks = Tensor::from_values(ElementType::kFloat32, {2}, k);
    vs = Tensor::from_values(ElementType::kFloat32, {2}, v);
  } else if (granularity == ScaleGranularity::kTokenHead) {
    ks = vs = Tensor(ElementType::kFloat32, {0, 2});
  }
  const Tensor none(ElementType::kFloat8E4M3FN, {0, 2, 4});
  const std::vector<std::int64_t> lengths{0}, capacity{3};
  return make_paged_cache(config, none, none, ks, vs, lengths, capacity, {});
}

std::vector<float> stored(KvCache& cache, CachePart part, std::int64_t p, std::int64_t head,
                          const std::vector<float>& values) {
  store_head(values.data(), part, 0, p, head, cache);
  std::vector<float> back(values.size());
  load_head(cache, part, 0, p, head, back.data());
  return back;
}

using Row = std::vector<float>;

TEST(CpuFp8Cache, UnscaledCodesAreRoundedAndSaturate) {
  KvCache cache = small_cache(ScaleGranularity::kNone, 0.0, 0.0);
  EXPECT_EQ(stored(cache, CachePart::kKeys, 2, 1, {0.3f, 1000.0f, -17.0f, 0x1p-11f}),
            (Row{0.3125f, 448.0f, -16.0f, 0.0f}));
}

/// Divided by 2, then 4: 17 / 2 = 8.5 ties to 8, 19 / 2 = 9.5 to 10; 18 / 4 = 4.5 is a code.
TEST(CpuFp8Cache, ScaledByTensorAndByHead) {
  KvCache cache = small_cache(ScaleGranularity::kTensor, 2.0, 4.0);
  EXPECT_EQ(stored(cache, CachePart::kKeys, 0, 1, {17.0f, 19.0f, 2000.0f, 0.0f}),
            (Row{16.0f, 20.0f, 896.0f, 0.0f}));
  EXPECT_EQ(stored(cache, CachePart::kValues, 0, 1, {18.0f, 2000.0f, 1.0f, 0.0f}),
            (Row{18.0f, 1792.0f, 1.0f, 0.0f}));
  cache = small_cache(ScaleGranularity::kHead, 1.0, 2.0);
  EXPECT_EQ(stored(cache, CachePart::kKeys, 1, 0, {17.0f, 500.0f, 0.0f, 0.0f})[1], 448.0f);
  EXPECT_EQ(stored(cache, CachePart::kKeys, 1, 1, {17.0f, 500.0f, 19.0f, 0.0f}),
            (Row{16.0f, 512.0f, 20.0f, 0.0f}));
  EXPECT_EQ(stored(cache, CachePart::kValues, 1, 1, {18.0f, 2000.0f, 0.0f, 0.0f})[1], 1792.0f);
}

/// Largest value 896: scale 2. The scale of a row of zeros is 1; that of a row whose largest value
/// over 448 is no float32 is 0, and so are its values. There is no cap at 1200.
TEST(CpuFp8Cache, ATokenAndHeadMakesItsScale) {
  KvCache cache = small_cache(ScaleGranularity::kTokenHead, 0.0, 0.0);
  const auto scale = [&](std::int64_t p, std::int64_t head) {
    return cache.k_scale.value(cache.k_index(0, p) / 4 + head);
  };
  EXPECT_EQ(stored(cache, CachePart::kKeys, 2, 1, {17.0f, -896.0f, 19.0f, 0.7f}),
            (Row{16.0f, -896.0f, 20.0f, 0.6875f}));
  EXPECT_EQ(scale(2, 1), 2.0);
  EXPECT_EQ(stored(cache, CachePart::kKeys, 2, 0, {0.0f, 0.0f, -0.0f, 0.0f}),
            (Row{0.0f, 0.0f, 0.0f, 0.0f}));
  EXPECT_EQ(scale(2, 0), 1.0);
  EXPECT_EQ(scale(2, 1), 2.0) << "the neighbour's stays";
  EXPECT_EQ(stored(cache, CachePart::kKeys, 0, 0, {4480.0f, 0.0f, 0.0f, 10.0f}),
            (Row{4480.0f, 0.0f, 0.0f, 10.0f}));
  EXPECT_EQ(scale(0, 0), 10.0);
  EXPECT_EQ(stored(cache, CachePart::kKeys, 1, 0, {0x1p-149f, 0.0f, 0.0f, 0.0f}), Row(4, 0.0f));
  EXPECT_EQ(scale(1, 0), 0.0);
  // Values have pools of their own.
  stored(cache, CachePart::kValues, 2, 1, {448.0f, 0.0f, 0.0f, 0.0f});
  EXPECT_EQ(scale(2, 1), 2.0);
}

/// Index of the scale of row r, head h, of the pool.
double scale_at(const Tensor& scales, std::int64_t row, std::int64_t heads, std::int64_t h) {
  if (scales.empty()) return 1.0;
  if (scales.shape().empty()) return scales.value(0);
  return scales.value(scales.shape().size() == 1 ? h : row * heads + h);
}

/// A layer: the codes of new rows are those of float64's division (reference/core's rounding), old
/// rows, other layers and unused slots keep every bit, and cache_k is code times scale.
TEST(CpuFp8Cache, ALayerStoresItsNewRowsAndNothingElse) {
  for (const ScaleGranularity granularity : kGranularities) {
    SCOPED_TRACE(name_of(granularity));
    const Case c = random_case(with_fp8_cache(layer_config(6, 3, 16, 64), granularity),
                               {{5, 7}, {0, 3}, {30, 4}}, 4);
    const Trace got = run_cpu(c);
    KvCache want = c.cache;
    const KvCache& after = *got.cache;
    for (std::int64_t b = 0; b < c.batch(); ++b) {
      for (std::int64_t i = 0; i < c.row_count(b); ++i) {
        const std::int64_t at = c.cache.k_index(b, c.cached(b) + i);
        const std::int64_t first = (c.row_begin(b) + i) * c.config.k_width();
        for (std::int64_t d = 0; d < c.config.k_width(); ++d) {
          const std::int64_t h = d / 16;
          const double scale = scale_at(after.k_scale, at / 48, 3, h);
          const double k = got[Stage::kKRope].value(first + d);
          want.k.set_code(at + d, attn::encode(ElementType::kFloat8E4M3FN, k / scale));
          const double v_scale = scale_at(after.v_scale, at / 48, 3, h);
          const double v = got[Stage::kVProj].value(first + d);
          want.v.set_code(at + d, attn::encode(ElementType::kFloat8E4M3FN, v / v_scale));
          if (granularity == ScaleGranularity::kTokenHead) {
            want.k_scale.set_value(at / 48 * 3 + h, scale);
            want.v_scale.set_value(at / 48 * 3 + h, v_scale);
          }
        }
      }
    }
    EXPECT_EQ(after, want);
    const Tensor keys = logical_keys(c, after);
    const Tensor values = logical_values(c, after);
    for (std::int64_t i = 0; i < keys.size(); ++i) {
      ASSERT_EQ(static_cast<float>(got[Stage::kCacheK].value(i)),
                static_cast<float>(keys.value(i)));
      ASSERT_EQ(static_cast<float>(got[Stage::kCacheV].value(i)),
                static_cast<float>(values.value(i)));
    }
  }
}

TEST(CpuFp8Cache, MaterializeStoresTheBitsOfForward) {
  for (const ScaleGranularity granularity : kGranularities) {
    Case c =
        random_case(with_fp8_cache(layer_config(6, 3, 16, 64), granularity), {{5, 7}, {0, 3}}, 4);
    const Trace forward = run_cpu(c);
    c.config.entry_point = EntryPoint::kMaterializeKvFromHidden;
    EXPECT_EQ(*run_cpu(c).cache, *forward.cache);
  }
}

/// Attention on an fp8 cache is attention on a float32 cache of the same values, bit for bit.
TEST(CpuFp8Cache, AttentionReadsCodesTimesScales) {
  for (const ScaleGranularity granularity : kGranularities) {
    SCOPED_TRACE(name_of(granularity));
    const Case c = random_case(with_fp8_cache(core_config(6, 3, 16), granularity),
                               {{3, 40}, {1, 17}, {4, 4}}, 9);
    Case plain = c;
    plain.config.kv_cache = core_config(6, 3, 16).kv_cache;
    plain.cache.k_scale = plain.cache.v_scale = Tensor();
    const auto decoded = [](const Tensor& pool, const Tensor& scales) {
      Tensor values(ElementType::kFloat32, pool.shape());
      for (std::int64_t i = 0; i < pool.size(); ++i) {
        values.set_value(i, pool.value(i) * scale_at(scales, i / 48, 3, i / 16 % 3));
      }
      return values;
    };
    plain.cache.k = decoded(c.cache.k, c.cache.k_scale);
    plain.cache.v = decoded(c.cache.v, c.cache.v_scale);
    const Trace got = run_cpu(c);
    const Trace want = run_cpu(plain);
    EXPECT_EQ(got[Stage::kAttnOut], want[Stage::kAttnOut]);
    EXPECT_EQ(got[Stage::kLse], want[Stage::kLse]);
  }
}

}  // namespace
}  // namespace attn::harness::cpu
