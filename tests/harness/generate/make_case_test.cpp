#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "harness/generate/case_spec.h"
#include "reference/core/error.h"
#include "reference/core/philox.h"
#include "reference/core/rules.h"
#include "reference/core/trace.h"

namespace attn::harness {
namespace {

using ::testing::HasSubstr;

/// Between them every tensor and every recipe of the generator.
const std::string kLayer = R"({"config": {"dtype": "float32", "num_attention_heads": 6,
    "num_key_value_heads": 2, "head_dim": 16, "hidden_size": 72, "has_bias": true,
    "use_qk_norm": true, "mask": {"variant": "sliding_window_causal", "window_size": 5},
    "kv_cache": {"page_size": 4}}, "rows": [[7, 3], [0, 5], [9, 0]], "profile": "needles",
    "sinks": true, "layers": 2, "layer": 1})";
const std::string kAttention = R"({"config": {"variant": "attention", "entry_point": "attention",
    "dtype": "bfloat16", "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 24,
    "head_dim_v": 40, "mask": {"variant": "tensor"}, "kv_cache": {"page_size": 3}},
    "rows": [[3, 10], [4, 2]], "sinks": true})";
const std::string kMaterialize = R"({"config": {"entry_point": "materialize_kv_from_hidden",
    "dtype": "float16", "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8,
    "hidden_size": 64, "stacked_qkv": true, "use_qk_norm": true, "kv_cache": {"page_size": 8}},
    "rows": [[5, 6]], "pages": "identity", "profile": "tiny_norm"})";

/// FNV-1a over the bytes of every input but freqs_cis, whose cosines come from libm.
std::uint64_t digest(const Case& c) {
  std::uint64_t hash = 0xcbf29ce484222325;
  const auto eat = [&hash](std::span<const std::byte> bytes) {
    for (const std::byte byte : bytes) {
      hash = (hash ^ static_cast<std::uint64_t>(byte)) * 0x100000001b3;
    }
  };
  for (const auto& [name, tensor] : c.weights) eat(tensor.bytes());
  for (const Tensor* tensor : {&c.x, &c.q, &c.mask, &c.input_row_offsets, &c.cache_lengths,
                               &c.cache.k, &c.cache.v, &c.cache.page_table}) {
    eat(tensor->bytes());
  }
  return hash;
}

/// The bytes of these cases are part of every golden file and every reported failure: a change here
/// means that old reproduction lines no longer reproduce.
TEST(MakeCase, BytesNeverChange) {
  EXPECT_EQ(digest(make_case(parse_case_spec(kLayer), 1)), 0xecea820a9088a0b9ULL);
  EXPECT_EQ(digest(make_case(parse_case_spec(kAttention), 2)), 0xc9de5164ca3b5530ULL);
  EXPECT_EQ(digest(make_case(parse_case_spec(kMaterialize), 0xfedcba9876543210)),
            0x7e166ab0fae6506cULL);
}

TEST(MakeCase, SeedDecides) {
  const CaseSpec spec = parse_case_spec(kLayer);
  const Case a = make_case(spec, 5);
  const Case b = make_case(spec, 5);
  const Case other = make_case(spec, 6);
  EXPECT_EQ(a.weights, b.weights);
  EXPECT_EQ(a.x, b.x);
  EXPECT_EQ(a.cache, b.cache);
  for (const auto& [name, tensor] : a.weights) EXPECT_NE(tensor, other.weights.at(name)) << name;
  EXPECT_NE(a.x, other.x);
  EXPECT_NE(a.cache.page_table, other.cache.page_table);
}

/// Pages in order keep the dense order of the elements, so element i is draw i of its stream; more
/// than 2^20 elements are drawn by two threads.
TEST(MakeCase, EveryElementIsTheDrawOfItsIndex) {
  const CaseSpec spec = parse_case_spec(R"({"config": {"variant": "attention",
      "entry_point": "attention", "num_attention_heads": 1, "num_key_value_heads": 1,
      "head_dim": 128, "kv_cache": {"page_size": 64}}, "rows": [[1, 9001]], "pages": "identity"})");
  const Case c = make_case(spec, 3);
  const RandomStream stream(3, "cache/k");
  for (std::int64_t i = 0; i < 9001 * 128; ++i) {
    const auto draw = static_cast<float>(stream.normal(static_cast<std::uint64_t>(i)));
    ASSERT_EQ(c.cache.k.as<float>()[i], draw) << i;
  }
}

TEST(MakeCase, ReproWordsMakeTheSameCaseAgain) {
  for (const std::string& json : {kLayer, kAttention, kMaterialize}) {
    const Case c = make_case(parse_case_spec(json), 11);
    const std::string start = "--config '";
    const std::string end = "' --seed 11";
    ASSERT_TRUE(c.repro.starts_with(start) && c.repro.ends_with(end)) << c.repro;
    const std::string words =
        c.repro.substr(start.size(), c.repro.size() - start.size() - end.size());
    ASSERT_EQ(words.find('\''), std::string::npos);
    EXPECT_EQ(digest(make_case(parse_case_spec(words), 11)), digest(c));
  }
}

TEST(MakeCase, FollowsTheSpec) {
  const Case c = make_case(parse_case_spec(kLayer), 1);
  validate(c);
  EXPECT_EQ(c.batch(), 3);
  EXPECT_EQ(c.tokens(), 8);
  EXPECT_EQ(c.cached(0), 7);
  EXPECT_EQ(c.row_count(1), 5);
  EXPECT_EQ(c.row_count(2), 0);
  EXPECT_EQ(c.key_count(0), 10);
  EXPECT_TRUE(c.has_sinks());
  EXPECT_EQ(c.cache.num_layers, 2);
  EXPECT_EQ(c.cache.layer, 1);
  EXPECT_EQ(c.freqs_cis.shape(), (Shape{10, 16}));
  // The third position of sequence 0 lies in its page; new slots and the other layer are NaN.
  EXPECT_TRUE(std::isfinite(c.cache.k.value(c.cache.k_index(0, 2))));
  EXPECT_TRUE(std::isnan(c.cache.k.value(c.cache.k_index(0, 7))));
}

TEST(MakeCase, PagesInOrderOrShuffled) {
  CaseSpec spec = parse_case_spec(kLayer);
  spec.rows = {{60, 4}};
  spec.pages = PageOrder::kIdentity;
  const Case ordered = make_case(spec, 1);
  for (std::int64_t p = 0; p < 64; ++p) EXPECT_EQ(ordered.cache.page_of(0, p), p / 4);
  spec.pages = PageOrder::kShuffled;
  EXPECT_NE(make_case(spec, 1).cache.page_table, ordered.cache.page_table);
}

/// Live pages are the highest of a large pool, in a random order, and everything below is poison.
TEST(MakeCase, PagesAtTheTopOfALargePool) {
  CaseSpec spec = parse_case_spec(R"({"config": {"num_attention_heads": 2, "head_dim": 16,
      "num_key_value_heads": 2, "hidden_size": 32, "kv_cache": {"page_size": 4}},
      "rows": [[30, 2], [9, 1]], "pages": "top"})");
  const Case c = make_case(spec, 1);
  std::vector<std::int64_t> live;
  for (const auto& [b, pages] : {std::pair{0, 8}, {1, 3}}) {
    for (std::int64_t j = 0; j < pages; ++j) live.push_back(c.cache.page_of(b, j * 4));
  }
  EXPECT_GT(c.cache.num_pages(), 100);
  EXPECT_FALSE(std::ranges::is_sorted(live));
  EXPECT_EQ(*std::ranges::min_element(live), c.cache.num_pages() - 11);
  EXPECT_EQ(*std::ranges::max_element(live), c.cache.num_pages() - 1);
  EXPECT_TRUE(std::isnan(c.cache.k.value(0)));
  spec.pages = PageOrder::kShuffled;
  EXPECT_EQ(logical_keys(c, c.cache), logical_keys(make_case(spec, 1), make_case(spec, 1).cache));
}

TEST(MakeCase, EmptyBatchesAndRowsAreCases) {
  CaseSpec spec = parse_case_spec(kLayer);
  for (const auto& rows : {std::vector<RowSpec>{}, std::vector<RowSpec>{{0, 0}},
                           std::vector<RowSpec>{{5, 0}, {0, 1}}}) {
    spec.rows = rows;
    const Case c = make_case(spec, 1);
    EXPECT_NO_THROW(validate(c));
    EXPECT_EQ(c.batch(), static_cast<std::int64_t>(rows.size()));
  }
}

/// cos and sin of position * theta^(-2j/n), worked out in long double.
TEST(MakeCase, TableIsRoundedOnce) {
  const Case c = make_case(parse_case_spec(kLayer), 1);
  for (std::int64_t p = 0; p < c.freqs_cis.dim(0); ++p) {
    for (std::int64_t j = 0; j < 8; ++j) {
      const long double angle = static_cast<long double>(p) *
                                std::pow(10000.0L, -2.0L * static_cast<long double>(j) / 16);
      const float* entry = c.freqs_cis.as<float>() + p * 16 + 2 * j;
      EXPECT_FLOAT_EQ(entry[0], static_cast<float>(std::cos(angle)));
      EXPECT_FLOAT_EQ(entry[1], static_cast<float>(std::sin(angle)));
    }
  }
}

TEST(MakeCase, MaskIsFiniteAndGuardsUnusedColumns) {
  const Case c = make_case(parse_case_spec(kAttention), 2);
  ASSERT_EQ(c.mask.shape(), (Shape{7, 10}));
  int far = 0;
  for (std::int64_t t = 0; t < 7; ++t) {
    const std::int64_t keys = t < 3 ? 10 : 2;
    for (std::int64_t p = 0; p < 10; ++p) {
      const double value = c.mask.value(t * 10 + p);
      if (p >= keys) {
        EXPECT_EQ(value, 1e4);
      } else {
        EXPECT_TRUE(value == -1e4 || std::abs(value) < 10);  // |N| <= 4.9, times 2
        far += value == -1e4 ? 1 : 0;
      }
    }
  }
  EXPECT_GT(far, 0);
}

TEST(MakeCase, RefusesWhatItCannotMake) {
  const auto refusal = [](const CaseSpec& spec) -> std::pair<ErrorKind, std::string> {
    try {
      make_case(spec, 1);
    } catch (const Error& error) {
      return {error.kind(), error.what()};
    }
    return {ErrorKind::kInternal, "made"};
  };
  CaseSpec spec = parse_case_spec(kLayer);
  spec.profile = "nomral";
  EXPECT_THAT(refusal(spec).second, HasSubstr("did you mean \"normal\"?"));

  spec = parse_case_spec(kLayer);
  spec.rows.assign(1000,
                   {0, (std::int64_t{1} << 31) - 1});  // 10^14 elements: no allocation is tried
  EXPECT_EQ(refusal(spec).first, ErrorKind::kConfig);
  EXPECT_THAT(refusal(spec).second, HasSubstr("rows: the case would hold"));
}

}  // namespace
}  // namespace attn::harness
