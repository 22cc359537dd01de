#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "harness/backends/cpu/cpu_backend.h"
#include "tests/harness/backends/naive_attention.h"
#include "tests/harness/backends/test_cases.h"

namespace attn::harness::cpu {
namespace {

const RowPairs kRows = {
    {5, 7}, {0, 3}, {9, 0}, {15, 2}, {31, 1}};  // new tokens straddle pages of 16

Trace run_cpu(const Case& c, std::int64_t block = 64, int threads = 1) {
  return make_cpu_backend({block, threads})->run(c, all_stages());
}

/// Values that a stage should have, and what their allowance scales with.
struct Expected {
  std::vector<double> value, magnitude;
};

void expect_near(const Tensor& got, const Expected& want, double roundings,
                 const std::string& what) {
  const std::vector<double> values = got.values();
  ASSERT_EQ(values.size(), want.value.size()) << what;
  for (std::size_t i = 0; i < values.size(); ++i) {
    // Each rounding moves the element by 2^-24 of its magnitude; first order, 1 % for the rest.
    ASSERT_LE(std::abs(values[i] - want.value[i]), 1.01 * 0x1p-24 * roundings * want.magnitude[i])
        << what << " element " << i << ": " << values[i] << ", want " << want.value[i];
  }
}

/// y = clip(x clip(W)^T + bias) in float64; W is rows first .. first + count - 1 of `weight`.
Expected naive_projection(const Case& c, const std::vector<double>& x, std::int64_t width,
                          const std::string& name, std::int64_t first, std::int64_t count) {
  const bool is_input = name != "o";
  const bool stacked = is_input && c.config.stacked_qkv;
  const std::vector<double> w =
      c.weights.at(stacked ? "qkv_proj.weight" : name + "_proj.weight").values();
  if (!stacked) first = 0;
  Expected y;
  for (std::int64_t t = 0; t < c.tokens(); ++t) {
    for (std::int64_t j = 0; j < count; ++j) {
      double sum = 0.0, magnitude = 0.0;
      for (std::int64_t i = 0; i < width; ++i) {
        double weight = w[static_cast<std::size_t>((first + j) * width + i)];
        if (is_input && c.config.weight_clip()) {
          weight = std::clamp(weight, -*c.config.weight_clip(), *c.config.weight_clip());
        }
        const double term = x[static_cast<std::size_t>(t * width + i)] * weight;
        sum += term;
        magnitude += std::abs(term);
      }
      if (is_input && c.config.has_bias) {
        const double bias = c.weights.at(name + "_proj.bias").value(j);
        sum += bias;
        magnitude += std::abs(bias);
      }
      if (is_input && c.config.clip_activations) {
        sum = std::clamp(sum, -*c.config.clip_activations, *c.config.clip_activations);
      }
      y.value.push_back(sum);
      y.magnitude.push_back(magnitude);
    }
  }
  return y;
}

Expected naive_norm(const Case& c, const std::vector<double>& x, const Tensor& gamma) {
  const std::int64_t d = c.config.head_dim;
  Expected y;
  for (std::size_t head = 0; head < x.size(); head += static_cast<std::size_t>(d)) {
    double mean = 0.0;
    for (std::size_t i = head; i < head + static_cast<std::size_t>(d); ++i) mean += x[i] * x[i];
    mean /= static_cast<double>(d);
    for (std::int64_t i = 0; i < d; ++i) {
      y.value.push_back(x[head + static_cast<std::size_t>(i)] /
                        std::sqrt(mean + c.config.rms_norm_eps) * gamma.value(i));
      y.magnitude.push_back(std::abs(y.value.back()));
    }
  }
  return y;
}

/// Rotation written with the list of pairs, as golden-format.md describes them.
Expected naive_rope(const Case& c, const std::vector<double>& x, std::int64_t heads) {
  const AttentionConfig& f = c.config;
  const std::int64_t r = f.rotary_dim();
  Expected y{x, x};
  for (double& m : y.magnitude) m = std::abs(m);
  for (std::int64_t b = 0; b < c.batch(); ++b) {
    for (std::int64_t i = 0; i < c.row_count(b); ++i) {
      for (std::int64_t h = 0; h < heads; ++h) {
        for (std::int64_t j = 0; j < r / 2; ++j) {
          const std::int64_t shift = f.rope.rotary_side == RotarySide::kLast ? f.head_dim - r : 0;
          const auto head =
              static_cast<std::size_t>(((c.row_begin(b) + i) * heads + h) * f.head_dim);
          const std::size_t p =
              head + static_cast<std::size_t>(shift + (f.rope.interleaved ? 2 * j : j));
          const std::size_t q =
              head + static_cast<std::size_t>(shift + (f.rope.interleaved ? 2 * j + 1 : j + r / 2));
          const double cosine = c.freqs_cis.value((c.cached(b) + i) * r + 2 * j);
          const double sine = c.freqs_cis.value((c.cached(b) + i) * r + 2 * j + 1);
          y.value[p] = x[p] * cosine - x[q] * sine;
          y.value[q] = x[q] * cosine + x[p] * sine;
          y.magnitude[p] = std::abs(x[p] * cosine) + std::abs(x[q] * sine);
          y.magnitude[q] = std::abs(x[q] * cosine) + std::abs(x[p] * sine);
        }
      }
    }
  }
  return y;
}

/// Every stage against float64 loops fed with the backend's own previous stage.
void expect_every_stage(const Case& c, const Trace& got, std::int64_t block,
                        const std::string& what) {
  const AttentionConfig& f = c.config;
  const auto chain = [](std::int64_t n) { return static_cast<double>(n) / 8 + 3; };
  // A product, the chain, the bias and the clip bounds' own rounding.
  const double projection = chain(f.hidden_size) + 4;
  const std::vector<double> x = c.x.values();
  expect_near(got[Stage::kQProj], naive_projection(c, x, f.hidden_size, "q", 0, f.q_width()),
              projection, what + " q_proj");
  expect_near(got[Stage::kKProj],
              naive_projection(c, x, f.hidden_size, "k", f.q_width(), f.k_width()), projection,
              what + " k_proj");
  expect_near(got[Stage::kVProj],
              naive_projection(c, x, f.hidden_size, "v", f.q_width() + f.k_width(), f.v_width()),
              projection, what + " v_proj");
  Stage q = Stage::kQProj, k = Stage::kKProj;
  if (f.use_qk_norm) {
    // Half the sum of squares' relative error (D additions, D products), the mean, eps, root,
    // division and two products.
    const double norm = static_cast<double>(f.head_dim + 1) / 2 + 6;
    expect_near(got[Stage::kQNorm], naive_norm(c, got[q].values(), c.weights.at("q_norm.weight")),
                norm, what + " q_norm");
    expect_near(got[Stage::kKNorm], naive_norm(c, got[k].values(), c.weights.at("k_norm.weight")),
                norm, what + " k_norm");
    q = Stage::kQNorm;
    k = Stage::kKNorm;
  }
  expect_near(got[Stage::kQRope], naive_rope(c, got[q].values(), f.num_attention_heads), 2,
              what + " q_rope");
  expect_near(got[Stage::kKRope], naive_rope(c, got[k].values(), f.num_key_value_heads), 2,
              what + " k_rope");

  const std::vector<double> keys = got[Stage::kCacheK].values();
  const std::vector<double> values = got[Stage::kCacheV].values();
  EXPECT_EQ(keys, logical_keys(c, *got.cache).values()) << what;
  EXPECT_EQ(values, logical_values(c, *got.cache).values()) << what;
  const NaiveAttention want = naive_attention(c, got[Stage::kQRope].values(), keys, values);
  std::int64_t longest = 0;
  for (std::int64_t b = 0; b < c.batch(); ++b) longest = std::max(longest, c.key_count(b));
  // As in cpu_attention_test: score chain, key chain, rescales; doubled there and here.
  const double attention =
      2 * (chain(f.head_dim) + 7 + static_cast<double>(longest) +
           3 * std::ceil(static_cast<double>(longest) / static_cast<double>(block)));
  expect_near(got[Stage::kLse], {want.lse, want.lse_scale}, attention, what + " lse");
  expect_near(got[Stage::kAttnOut], {want.out, want.out_scale}, attention, what + " attn_out");
  expect_near(
      got[Stage::kOut],
      naive_projection(c, got[Stage::kAttnOut].values(), f.attn_width(), "o", 0, f.hidden_size),
      chain(f.attn_width()) + 4, what + " out");
}

/// The layer's switches one by one, and all that go together.
std::vector<std::pair<std::string, AttentionConfig>> layer_variants() {
  std::vector<std::pair<std::string, AttentionConfig>> variants;
  const auto add = [&](const std::string& name, auto change) {
    AttentionConfig config = layer_config(6, 2, 24, 88);
    change(config);
    variants.emplace_back(name, config);
  };
  add("plain", [](AttentionConfig&) {});
  add("stacked", [](AttentionConfig& f) { f.stacked_qkv = true; });
  add("half split", [](AttentionConfig& f) { f.rope.interleaved = false; });
  add("partial", [](AttentionConfig& f) { f.rope.rotary_dim = 10; });
  add("partial half split", [](AttentionConfig& f) {
    f.rope.rotary_dim = 16;
    f.rope.interleaved = false;
  });
  add("partial last", [](AttentionConfig& f) {
    f.rope.rotary_dim = 14;
    f.rope.rotary_side = RotarySide::kLast;
  });
  add("norm", [](AttentionConfig& f) { f.use_qk_norm = true; });
  add("large eps", [](AttentionConfig& f) {
    f.use_qk_norm = true;
    f.rms_norm_eps = 0.7;
  });
  add("bias", [](AttentionConfig& f) { f.has_bias = true; });
  add("clip weights", [](AttentionConfig& f) { f.clip_qkv = 0.07; });
  add("clip activations", [](AttentionConfig& f) { f.clip_activations = 0.6; });
  add("clip activations to zero", [](AttentionConfig& f) { f.clip_activations = 0.0; });
  add("no opaque", [](AttentionConfig& f) {
    f.variant = Variant::kNoOpaque;
    f.stacked_qkv = true;
  });
  add("everything", [](AttentionConfig& f) {
    f.has_bias = true;
    f.clip_qkv = 0.1;
    f.clip_activations = 1.1;
    f.use_qk_norm = true;
    f.rope.rotary_dim = 12;
    f.rope.interleaved = false;
    f.mask = {MaskVariant::kSlidingWindowCausal, MaskAlign::kBottomRight, 6, {}};
    f.logit_softcap = 3.0;
    f.scale = 0.4;
  });
  return variants;
}

TEST(CpuLayer, EveryStageOfEverySwitchAgreesWithPlainLoops) {
  for (const auto& [name, base] : layer_variants()) {
    for (const ElementType type :
         {ElementType::kFloat32, ElementType::kBFloat16, ElementType::kFloat16}) {
      for (const bool sinks : {false, true}) {
        AttentionConfig config = base;
        config.dtype = type;
        config.kv_cache.dtype = type;
        const Case c = random_case(config, kRows, 41, sinks);
        expect_every_stage(c, run_cpu(c, 8), 8,
                           name + " " + std::string(element_name(type)) + (sinks ? " sinks" : ""));
      }
    }
  }
}

TEST(CpuLayer, CacheHoldsTheNewRowsRoundedAndEveryOtherBitIsKept) {
  for (const ElementType type :
       {ElementType::kFloat32, ElementType::kBFloat16, ElementType::kFloat16}) {
    AttentionConfig config = layer_config(4, 2, 16, 64);
    config.kv_cache.dtype = type;
    const Case c = random_case(config, kRows, 8);
    const Trace got = run_cpu(c);
    KvCache want = c.cache;
    for (std::int64_t b = 0; b < c.batch(); ++b) {
      for (std::int64_t i = 0; i < c.row_count(b); ++i) {
        const std::int64_t row = c.row_begin(b) + i;
        const std::int64_t p = c.cached(b) + i;
        for (std::int64_t j = 0; j < config.k_width(); ++j) {
          want.k.set_value(want.k_index(b, p) + j,
                           got[Stage::kKRope].value(row * config.k_width() + j));
          want.v.set_value(want.v_index(b, p) + j,
                           got[Stage::kVProj].value(row * config.v_width() + j));
        }
      }
    }
    // The core's codec rounds here, and its poison (NaN in other layers, unused slots and foreign
    // pages) is part of the comparison: the bytes must be equal everywhere.
    EXPECT_EQ(*got.cache, want) << element_name(type);
  }
}

/// Copies of a pool with the slots that no token of the call lives in filled with `code`.
KvCache with_unused_slots(const Case& c, std::uint64_t code) {
  KvCache cache = c.cache;
  for (std::int64_t i = 0; i < cache.k.size(); ++i) cache.k.set_code(i, code);
  for (std::int64_t i = 0; i < cache.v.size(); ++i) cache.v.set_code(i, code);
  for (std::int64_t b = 0; b < c.batch(); ++b) {
    for (std::int64_t p = 0; p < c.cached(b); ++p) {
      for (std::int64_t j = 0; j < c.config.k_width(); ++j) {
        cache.k.set_code(cache.k_index(b, p) + j, c.cache.k.code(c.cache.k_index(b, p) + j));
        cache.v.set_code(cache.v_index(b, p) + j, c.cache.v.code(c.cache.v_index(b, p) + j));
      }
    }
  }
  return cache;
}

TEST(CpuLayer, WhatUnusedSlotsHoldDoesNotChangeABit) {
  AttentionConfig config = layer_config(4, 2, 16, 64);
  config.mask = {MaskVariant::kNull, MaskAlign::kBottomRight, {}, {}};
  Case c = random_case(config, kRows, 8);
  const Trace poisoned = run_cpu(c, 5);
  for (const double v : poisoned[Stage::kOut].values()) ASSERT_TRUE(std::isfinite(v));
  for (const std::uint64_t code : {0x00000000u, 0x7f800000u, 0x3f800000u}) {  // 0, infinity, 1
    c.cache = with_unused_slots(c, code);
    const Trace got = run_cpu(c, 5);
    for (const Stage stage : all_stages()) EXPECT_EQ(got[stage], poisoned[stage]) << name_of(stage);
  }
}

TEST(CpuLayer, MaterializeWritesTheCacheThatForwardWrites) {
  for (const bool norm : {false, true}) {
    AttentionConfig config = layer_config(4, 2, 16, 64);
    config.use_qk_norm = norm;
    Case c = random_case(config, kRows, 12);
    const Trace forward = run_cpu(c);
    c.config.entry_point = EntryPoint::kMaterializeKvFromHidden;
    const Trace materialized = run_cpu(c);
    EXPECT_EQ(*materialized.cache, *forward.cache);
    EXPECT_FALSE(materialized.has(Stage::kQProj));
    EXPECT_FALSE(materialized.has(Stage::kOut));
    for (const Stage stage : stages_of(c.config)) {
      EXPECT_EQ(materialized[stage], forward[stage]) << name_of(stage);
    }
  }
}

TEST(CpuLayer, EveryStageOfTheConfigIsThereInItsShape) {
  for (const auto& [name, config] : layer_variants()) {
    const Case c = random_case(config, kRows, 2);
    const Trace got = run_cpu(c);
    for (const Stage stage : stages_of(config)) {
      ASSERT_TRUE(got.has(stage)) << name << " " << name_of(stage);
      EXPECT_EQ(got[stage].shape(), stage_shape(c, stage)) << name << " " << name_of(stage);
      EXPECT_EQ(got[stage].type(), ElementType::kFloat32);
    }
  }
}

TEST(CpuLayer, PrefillInTwoChunksHasTheBitsOfOnePrefill) {
  AttentionConfig config = layer_config(4, 2, 16, 64);
  const Case whole = random_case(config, {{0, 40}}, 12);
  const Trace once = run_cpu(whole, 8);
  Case part = whole;
  const std::int64_t row_bytes = config.hidden_size * 4;
  std::vector<double> out;
  for (const auto& [begin, end] : {std::pair<std::int64_t, std::int64_t>{0, 13}, {13, 40}}) {
    part.input_row_offsets = uint32_tensor({0, end - begin});
    part.cache_lengths = uint32_tensor({begin});
    part.x = Tensor(whole.x.type(), {end - begin, config.hidden_size});
    std::memcpy(part.x.data(), whole.x.data() + begin * row_bytes,
                static_cast<std::size_t>((end - begin) * row_bytes));
    const Trace got = run_cpu(part, 8);
    part.cache = *got.cache;
    const std::vector<double> rows = got[Stage::kOut].values();
    out.insert(out.end(), rows.begin(), rows.end());
  }
  EXPECT_EQ(part.cache, *once.cache);
  EXPECT_EQ(out, once[Stage::kOut].values());
}

TEST(CpuLayer, ThreadsDoNotChangeABitOfAnyStage) {
  // Projections of 3e7 float operations: several threads' worth.
  AttentionConfig config = layer_config(8, 2, 64, 256);
  const Case c = random_case(config, {{200, 60}, {10, 50}}, 12);
  const Trace one = run_cpu(c, 64, 1);
  for (const int threads : {2, 3, 8}) {
    const Trace got = run_cpu(c, 64, threads);
    for (const Stage stage : all_stages()) EXPECT_EQ(got[stage], one[stage]) << name_of(stage);
    EXPECT_EQ(*got.cache, *one.cache);
  }
}

TEST(CpuLayer, NoTokensAndNoSequences) {
  for (const RowPairs& rows : {RowPairs{}, RowPairs{{0, 0}}, RowPairs{{7, 0}, {0, 0}}}) {
    const Case c = random_case(layer_config(4, 2, 16, 64), rows, 12);
    const Trace got = run_cpu(c);
    EXPECT_EQ(got[Stage::kOut].shape(), (Shape{0, 64}));
    EXPECT_EQ(*got.cache, c.cache);
  }
}

}  // namespace
}  // namespace attn::harness::cpu
