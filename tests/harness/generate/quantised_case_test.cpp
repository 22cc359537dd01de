#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <set>

#include "harness/generate/case_spec.h"
#include "harness/generate/profiles.h"
#include "reference/core/rules.h"

namespace attn::harness {
namespace {

/// Hidden 256, two query heads of 128 and one kv head: every block of every format fits.
CaseSpec spec_with(const std::string& quant, const std::string& variant = "attention_with_rope",
                   const std::string& cache = R"("page_size": 4)") {
  return parse_case_spec(R"({"config": {"variant": ")" + variant +
                         R"(", "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 128,
      "hidden_size": 256, "dtype": "float32", "kv_cache": {)" +
                         cache + R"(}, "quant": )" + quant + R"(}, "rows": [[5, 2], [0, 3]]})");
}

std::string fp8(const std::string& granularity, const std::string& activation) {
  return R"({"encoding": "float8_e4m3fn", "weight_granularity": ")" + granularity +
         R"(", "activation": ")" + activation + "\"}";
}

const std::vector<std::string> kQuants = {
    fp8("tensor", "static"),
    fp8("tensor", "token"),
    fp8("rowwise", "token"),
    fp8("block", "block"),
    R"({"encoding": "nvfp4", "activation": "block"})",
    R"({"encoding": "mxfp4"})",
    R"({"encoding": "mxfp8", "activation": "block"})",
    R"({"encoding": {"q_proj": "q4_0", "k_proj": "q5_k", "v_proj": "q6_k", "o_proj": "q4_k"}})",
    R"({"encoding": "q8_0", "activation": "int8"})",
    R"({"encoding": "gptq", "bits": 4, "group_size": 64, "desc_act": true})",
    R"({"encoding": "gptq", "bits": 8, "group_size": -1, "checkpoint_format": "gptq_v2"})",
};

/// FNV-1a over the stored weights' and the cache's bytes.
std::uint64_t digest(const Case& c) {
  std::uint64_t hash = 0xcbf29ce484222325;
  const auto eat = [&hash](std::span<const std::byte> bytes) {
    for (const std::byte byte : bytes) {
      hash = (hash ^ static_cast<std::uint64_t>(byte)) * 0x100000001b3;
    }
  };
  for (const auto& [name, tensor] : c.weights) eat(tensor.bytes());
  for (const Tensor* tensor :
       {&c.x, &c.q, &c.cache.k, &c.cache.v, &c.cache.k_scale, &c.cache.v_scale}) {
    eat(tensor->bytes());
  }
  return hash;
}

/// As MakeCase.BytesNeverChange, for what quantisation stores.
TEST(QuantisedCase, BytesNeverChange) {
  const std::vector<std::uint64_t> wanted = {
      0xb3ec5f300a82e36b, 0x1d1ecc3462328d03, 0xd6a6400e4c32257,  0xa9f49753ac7b4103,
      0x98d62bdda5ed3d08, 0x4c68b7bc9019a7ff, 0xd628a0056d8efa8b, 0x11818364bacfe79b,
      0x7cb2120e35b6a8ac, 0x1ae53402351896a4, 0xcbfd70bc22fe6f85,
  };
  for (std::size_t i = 0; i < kQuants.size(); ++i) {
    EXPECT_EQ(digest(make_case(spec_with(kQuants[i]), 1)), wanted.at(i))
        << kQuants[i] << std::hex << " 0x" << digest(make_case(spec_with(kQuants[i]), 1));
  }
}

const std::vector<std::string> kCaches = {
    R"("page_size": 4, "dtype": "float8_e4m3fn")",
    R"("page_size": 4, "dtype": "float8_e4m3fn", "scale_granularity": "tensor")",
    R"("page_size": 4, "dtype": "float8_e4m3fn", "scale_granularity": "head")",
    R"("page_size": 4, "dtype": "float8_e4m3fn", "scale_granularity": "token_head")",
};

TEST(QuantisedCase, CacheBytesNeverChange) {
  const std::vector<std::uint64_t> wanted = {0xf17db03088f0d71d, 0xa93d7b027482e0e,
                                             0x27a98081edc43979, 0xd72f005811a5dd5c};
  for (std::size_t i = 0; i < kCaches.size(); ++i) {
    const Case c = make_case(spec_with("null", "attention_with_rope", kCaches[i]), 1);
    EXPECT_EQ(digest(c), wanted.at(i)) << kCaches[i] << std::hex << " 0x" << digest(c);
  }
}

TEST(QuantisedCase, EveryEncodingInEveryProfileIsValid) {
  for (const std::string& quant : kQuants) {
    for (const Profile& profile : profiles()) {
      for (const std::string& cache : kCaches) {
        CaseSpec spec = spec_with(quant, "attention_with_rope", cache);
        spec.profile = profile.name;
        const Case c = make_case(spec, 3);
        EXPECT_NO_THROW(validate(c)) << to_json(spec);
        for (const auto& [name, tensor] : c.weights) {
          if (!is_float(tensor.type())) continue;
          for (const double value : tensor.values()) {
            ASSERT_TRUE(std::isfinite(value)) << name << to_json(spec);
          }
        }
      }
    }
  }
}

TEST(QuantisedCase, ScalesOfTheProjectionsDifferAndAreNeverOne) {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    for (const char* quant : {R"({"encoding": "float8_e4m3fn", "activation": "static"})",
                              R"({"encoding": "nvfp4", "activation": "block"})"}) {
      const Case c = make_case(spec_with(quant), seed);
      std::map<std::string, std::vector<double>> scales;
      for (const auto& [name, tensor] : c.weights) {
        if (tensor.shape().empty()) scales[name.substr(7)].push_back(tensor.value(0));
      }
      ASSERT_EQ(scales.size(), 2U) << "weight_scale or weight_scale_2, and input_scale";
      for (const auto& [kind, four] : scales) {
        ASSERT_EQ(four.size(), 4U) << kind;
        for (std::size_t i = 0; i < 4; ++i) {
          EXPECT_NE(four[i], 1.0);
          for (std::size_t j = 0; j < i; ++j) {
            EXPECT_GT(std::abs(std::log(four[i] / four[j])), std::log(1.19)) << kind << quant;
          }
        }
      }
    }
  }
}

/// Scales of k and v differ; no scale is 1; the prior codes go from below the smallest normal to
/// the largest.
TEST(QuantisedCase, CacheCodesCoverTheirRange) {
  for (std::size_t i = 1; i < kCaches.size(); ++i) {
    CaseSpec spec = spec_with("null", "attention_with_rope", kCaches[i]);
    spec.rows = {{40, 1}};
    std::set<double> magnitudes;
    for (std::uint64_t seed = 0; seed < 4; ++seed) {
      const Case c = make_case(spec, seed);
      EXPECT_NE(c.cache.k_scale, c.cache.v_scale);
      for (const Tensor* scale : {&c.cache.k_scale, &c.cache.v_scale}) {
        for (const double value : scale->values()) EXPECT_NE(value, 1.0);
      }
      for (std::int64_t p = 0; p < 40; ++p) {
        for (std::int64_t d = 0; d < 128; ++d) {
          magnitudes.insert(std::abs(c.cache.k.value(c.cache.k_index(0, p) + d)));
        }
      }
    }
    EXPECT_EQ(*magnitudes.rbegin(), 448.0) << kCaches[i];
    EXPECT_LT(*magnitudes.begin(), 0x1p-6) << kCaches[i];
    EXPECT_GT(magnitudes.size(), 100U) << "of 127 magnitudes";
  }
}

TEST(QuantisedCase, AttentionCachesAreQuantised) {
  for (const std::string& cache : kCaches) {
    const CaseSpec spec = parse_case_spec(R"({"config": {"variant": "attention",
        "entry_point": "attention", "num_attention_heads": 4, "num_key_value_heads": 2,
        "head_dim": 24, "head_dim_v": 40, "kv_cache": {)" +
                                          cache + R"(}}, "rows": [[3, 10], [2, 0]]})");
    const Case c = make_case(spec, 1);
    EXPECT_NO_THROW(validate(c));
    EXPECT_EQ(c.cache.k.type(), ElementType::kFloat8E4M3FN);
  }
}

// ---- What the two profiles reach.

std::set<int> stored_bytes(const Tensor& t, std::int64_t first, std::int64_t stride) {
  std::set<int> values;
  for (std::int64_t i = first; i < t.size(); i += stride) {
    values.insert(static_cast<int>(t.code(i)));
  }
  return values;
}

/// The six-bit scales and minima, and both signs and ends of the eight-bit scales.
TEST(QuantisedCase, CodeExtremesReachTheEndsOfEveryField) {
  CaseSpec spec = spec_with(
      R"({"encoding": {"q_proj": "q4_k", "k_proj": "q6_k", "v_proj": "q5_k", "o_proj": "q4_0"}})");
  spec.profile = "code_extremes";
  std::set<int> scales;
  std::set<int> minima;
  std::set<int> signed_scales;
  std::set<int> fifth_bits;
  for (std::uint64_t seed = 0; seed < 4; ++seed) {
    const Case c = make_case(spec, seed);
    for (const auto& [name, bytes] : {std::pair{"q_proj.weight", 144}, {"v_proj.weight", 176}}) {
      const Tensor& weight = c.weights.at(name);
      for (std::int64_t block = 0; block < weight.size(); block += bytes) {
        for (std::int64_t j = 0; j < 4; ++j) {
          scales.insert(static_cast<int>(weight.code(block + 4 + j) & 63U));
          minima.insert(static_cast<int>(weight.code(block + 8 + j) & 63U));
          const auto low = static_cast<int>(weight.code(block + 12 + j));
          const auto top = [&](std::int64_t at) {
            return static_cast<int>(weight.code(block + at + j) >> 6U) << 4;
          };
          scales.insert((low & 15) | top(4));
          minima.insert(low >> 4 | top(8));
        }
      }
    }
    for (std::int64_t j = 0; j < 16; ++j) {
      for (const int scale : stored_bytes(c.weights.at("k_proj.weight"), 192 + j, 210)) {
        signed_scales.insert(scale < 128 ? scale : scale - 256);
      }
    }
    for (std::int64_t l = 0; l < 32; ++l) {
      fifth_bits.merge(stored_bytes(c.weights.at("v_proj.weight"), 16 + l, 176));
    }
  }
  EXPECT_EQ(scales.size(), 64U);
  EXPECT_EQ(minima.size(), 64U);
  EXPECT_EQ(*signed_scales.begin(), -128);
  EXPECT_GT(*signed_scales.rbegin(), 100);
  EXPECT_TRUE(signed_scales.contains(0));
  EXPECT_GT(signed_scales.size(), 200U);
  EXPECT_EQ(fifth_bits.size(), 256U);
}

TEST(QuantisedCase, GptqCodesReachBothEnds) {
  for (const auto& [bits, top] : {std::pair{"4", 15}, {"8", 255}}) {
    CaseSpec spec = spec_with(std::string(R"({"encoding": "gptq", "bits": )") + bits +
                              R"(, "group_size": 32})");
    spec.profile = "code_extremes";
    const Case c = make_case(spec, 1);
    std::set<int> codes;
    for (const int byte : stored_bytes(
             [&] {
               const Tensor& words = c.weights.at("q_proj.qweight");
               Tensor bytes(ElementType::kUInt8, {words.size() * 4});
               std::ranges::copy(words.bytes(), bytes.data());
               return bytes;
             }(),
             0, 1)) {
      codes.insert(top == 15 ? byte & 15 : byte);
      codes.insert(top == 15 ? byte >> 4 : byte);
    }
    EXPECT_EQ(codes.size(), static_cast<std::size_t>(top) + 1);
  }
}

/// Rows of x whose largest magnitude passes 1200, where a dynamic scale stops to grow, rows of
/// zeros, and fp8 weights from zero over the subnormal codes to saturation.
TEST(QuantisedCase, Fp8RangePassesTheCapAndTheSubnormals) {
  CaseSpec spec = spec_with(fp8("tensor", "token"));
  spec.profile = "fp8_range";
  spec.rows = {{0, 24}};
  const Case c = make_case(spec, 1);
  int capped = 0;
  int below = 0;
  int zero = 0;
  std::vector<double> row(256);
  for (std::int64_t t = 0; t < 24; ++t) {
    c.x.values(t * 256, row);
    double amax = 0;
    for (const double value : row) amax = std::max(amax, std::abs(value));
    capped += amax > 1200 ? 1 : 0;
    below += amax > 0 && amax <= 1200 ? 1 : 0;
    zero += amax == 0 ? 1 : 0;
  }
  EXPECT_GT(capped, 4);
  EXPECT_GT(zero, 1);
  EXPECT_EQ(capped + below + zero, 24);
  const std::vector<double> codes = c.weights.at("q_proj.weight").values();
  const auto share = [&](const auto& is) {
    return static_cast<double>(std::ranges::count_if(codes, is)) /
           static_cast<double>(codes.size());
  };
  EXPECT_GT(share([](double v) { return std::abs(v) < 0x1p-6; }), 0.01) << "subnormal";
  EXPECT_GT(share([](double v) { return std::abs(v) > 64; }), 0.001);
}

}  // namespace
}  // namespace attn::harness
