#include "reference/core/paging.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "reference/core/error.h"
#include "reference/core/trace.h"
#include "tests/core/case_fixture.h"

namespace attn {
namespace {

/// 0, 1, 2, ... modulo 251, which every type of caches but fp8 holds exactly.
Tensor counting(ElementType type, const Shape& shape) {
  std::vector<double> values(static_cast<std::size_t>(num_elements(shape)));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<double>(i % 251);
  return Tensor::from_values(type, shape, values);
}

struct Layout {
  AttentionConfig config = test::layer_config();
  std::vector<std::int64_t> lengths{5, 0, 33};
  std::vector<std::int64_t> capacity{8, 1, 40};
  PagingOptions options{.seed = 3, .shuffled = true, .num_layers = 3, .layer = 1, .spare_pages = 2};
  Tensor k = counting(config.kv_cache.dtype, {38, 2, 16});
  Tensor v = counting(config.kv_cache.dtype, {38, 2, 16});

  KvCache cache() const {
    return make_paged_cache(config, k, v, {}, {}, lengths, capacity, options);
  }
};

TEST(Paging, PutsEachTokenWhereThePageTableSays) {
  const Layout layout;
  const KvCache cache = layout.cache();
  EXPECT_EQ(cache.k.shape(), (Shape{1 + 1 + 3 + 2, 3, 16, 2, 16}));
  std::int64_t row = 0;
  for (std::int64_t b = 0; b < 3; ++b) {
    for (std::int64_t p = 0; p < layout.lengths[static_cast<std::size_t>(b)]; ++p, ++row) {
      for (std::int64_t i = 0; i < 32; ++i) {
        ASSERT_EQ(cache.k.value(cache.k_index(b, p) + i), layout.k.value(row * 32 + i));
        ASSERT_EQ(cache.v.value(cache.v_index(b, p) + i), layout.v.value(row * 32 + i));
      }
    }
  }
}

TEST(Paging, FillsEverythingElseWithNaN) {
  const Layout layout;
  const std::vector<double> values = layout.cache().k.values();
  const auto finite =
      std::count_if(values.begin(), values.end(), [](double v) { return !std::isnan(v); });
  EXPECT_EQ(finite, layout.k.size());
}

TEST(Paging, OwnsEachPageOnceAndMarksUnusedColumns) {
  const KvCache cache = Layout().cache();
  ASSERT_EQ(cache.page_table.shape(), (Shape{3, 3}));
  std::multiset<double> pages;
  for (const double page : cache.page_table.values()) pages.insert(page);
  EXPECT_EQ(pages.count(7), 4U);  // sequences 0 and 1 have one page each: two columns left over
  for (int page = 0; page < 7; ++page) EXPECT_LE(pages.count(page), 1U);
}

TEST(Paging, ShufflesBySeed) {
  Layout layout;
  layout.lengths = {38};
  layout.capacity = {600};
  const auto table = [&] { return layout.cache().page_table.values(); };
  const std::vector<double> first = table();
  EXPECT_EQ(first, table());
  layout.options.seed = 4;
  EXPECT_NE(first, table());
  layout.options.shuffled = false;
  std::vector<double> identity(38);
  std::iota(identity.begin(), identity.end(), 0.0);
  EXPECT_EQ(table(), identity);
}

TEST(Paging, TakesAnEmptyCache) {
  Layout layout;
  layout.lengths = {0, 0, 0};
  layout.k = layout.v = Tensor();
  const KvCache cache = layout.cache();
  EXPECT_EQ(cache.num_pages(), 7);
  for (const double value : cache.v.values()) ASSERT_TRUE(std::isnan(value));
}

TEST(Paging, RefusesWhatDoesNotFit) {
  const auto expect_refusal = [](auto change) {
    Layout layout;
    change(layout);
    EXPECT_THROW(layout.cache(), Error);
  };
  expect_refusal([](Layout& l) { l.k = Tensor(ElementType::kFloat32, {37, 2, 16}); });
  expect_refusal([](Layout& l) { l.v = Tensor(ElementType::kFloat16, {38, 2, 16}); });
  expect_refusal([](Layout& l) { l.k = Tensor(); });
  expect_refusal([](Layout& l) { l.capacity[2] = 32; });
  expect_refusal([](Layout& l) { l.capacity.pop_back(); });
  expect_refusal([](Layout& l) { l.options.layer = 3; });
  expect_refusal([](Layout& l) { l.options.layer = -1; });
  expect_refusal([](Layout& l) { l.options.spare_pages = -1; });
}

TEST(Paging, IndexRefusesPositionsWithoutAPage) {
  const KvCache cache = Layout().cache();
  EXPECT_NO_THROW(cache.k_index(0, 7));
  EXPECT_THROW(cache.k_index(0, 16), Error);   // a column past the sequence's pages
  EXPECT_THROW(cache.k_index(0, 480), Error);  // past the table
  EXPECT_THROW(cache.k_index(3, 0), Error);
  EXPECT_THROW(cache.k_index(0, -1), Error);
}

TEST(Paging, ReadsBackInLogicalOrder) {
  const Layout layout;
  Case c;
  c.config = test::attention_config();
  c.input_row_offsets = test::index_tensor({0, 1, 2, 3});
  c.cache_lengths = test::index_tensor({5, 0, 33});
  c.cache = layout.cache();
  EXPECT_EQ(logical_keys(c, c.cache).values(), layout.k.values());
  EXPECT_EQ(logical_values(c, c.cache).shape(), (Shape{38, 2, 16}));
}

class Fp8Paging : public testing::TestWithParam<ScaleGranularity> {};

TEST_P(Fp8Paging, ScalesWhatItReadsBack) {
  Case c = test::make_case([] {
    AttentionConfig config = test::attention_config();
    config.kv_cache.dtype = ElementType::kFloat8E4M3FN;
    config.kv_cache.scale_granularity = GetParam();
    return config;
  }());
  const std::vector<std::int64_t> lengths{8, 21};
  const Tensor codes = Tensor::from_values(ElementType::kFloat8E4M3FN, {29, 2, 16},
                                           std::vector<double>(29 * 2 * 16, 2.0));
  Shape shape;
  if (GetParam() == ScaleGranularity::kHead) shape = {2};
  if (GetParam() == ScaleGranularity::kTokenHead) shape = {29, 2};
  const Tensor scale = counting(ElementType::kFloat32, shape);
  c.cache = make_paged_cache(c.config, codes, codes, scale, scale, lengths, lengths, {});
  const std::vector<double> keys = logical_keys(c, c.cache).values();
  for (std::int64_t i = 0; i < 29 * 2 * 16; ++i) {
    const std::int64_t row_head = i / 16;
    const std::int64_t at = shape.empty() ? 0 : (shape.size() == 1 ? row_head % 2 : row_head);
    ASSERT_EQ(keys[static_cast<std::size_t>(i)], 2.0 * scale.value(at)) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Granularities, Fp8Paging,
                         testing::Values(ScaleGranularity::kTensor, ScaleGranularity::kHead,
                                         ScaleGranularity::kTokenHead),
                         [](const auto& test) { return std::string(name_of(test.param)); });

}  // namespace
}  // namespace attn
