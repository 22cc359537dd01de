#include "harness/generate/profiles.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>

#include "reference/core/trace.h"
#include "reference/reference.h"

namespace attn::harness {
namespace {

/// Heads at the size of real models, a long prefix and some new rows.
AttentionConfig layer_config() {
  return parse_case_spec(R"({"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64,
      "hidden_size": 128, "kv_cache": {"page_size": 16}, "rope": {"interleaved": false}})")
      .config;
}

AttentionConfig attention_config() {
  return parse_case_spec(R"({"variant": "attention", "entry_point": "attention",
      "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64,
      "kv_cache": {"page_size": 16}})")
      .config;
}

CaseSpec spec_of(const AttentionConfig& config, const std::string& profile) {
  CaseSpec spec;
  spec.config = config;
  spec.profile = profile;
  spec.rows = {{40, 8}, {0, 12}};
  if (config.starts_at_attention()) spec.rows = {{8, 48}, {12, 12}};
  return spec;
}

/// Scaled logits of one row and head against every key of its sequence, masked or not.
struct LogitRow {
  std::int64_t sequence = 0;
  std::int64_t index = 0;  ///< of the row in its sequence
  std::int64_t head = 0;
  std::vector<double> logits;
};

std::vector<LogitRow> scaled_logits(const Case& c) {
  const Trace trace = reference::evaluate(c, reference::Mode::kExact);
  const AttentionConfig& config = c.config;
  const std::vector<double> q =
      config.starts_at_attention() ? c.q.values() : trace[Stage::kQRope].values();
  const std::vector<double> k = logical_keys(c, *trace.cache).values();
  const std::int64_t d = config.head_dim;
  std::vector<LogitRow> rows;
  std::int64_t first_key = 0;
  for (std::int64_t b = 0; b < c.batch(); ++b) {
    for (std::int64_t i = 0; i < c.row_count(b); ++i) {
      for (std::int64_t h = 0; h < config.num_attention_heads; ++h) {
        LogitRow row{b, i, h, {}};
        const double* query = &q[static_cast<std::size_t>(
            ((c.row_begin(b) + i) * config.num_attention_heads + h) * d)];
        for (std::int64_t p = 0; p < c.key_count(b); ++p) {
          const double* key = &k[static_cast<std::size_t>(
              ((first_key + p) * config.num_key_value_heads + h / config.group_size()) * d)];
          row.logits.push_back(config.softmax_scale() *
                               std::inner_product(query, query + d, key, 0.0));
        }
        rows.push_back(std::move(row));
      }
    }
    first_key += c.key_count(b);
  }
  return rows;
}

double standard_deviation(const std::vector<LogitRow>& rows) {
  double sum = 0;
  double squares = 0;
  double n = 0;
  for (const LogitRow& row : rows) {
    for (const double logit : row.logits) {
      sum += logit;
      squares += logit * logit;
      n += 1;
    }
  }
  return std::sqrt(squares / n - sum / n * (sum / n));
}

/// Every way to make q and k that changes their size.
std::vector<AttentionConfig> scaled_configs() {
  std::vector<AttentionConfig> configs = {layer_config(), attention_config()};
  for (const double scale : {0.07, 1.0, -0.5}) {
    for (AttentionConfig config : {layer_config(), attention_config()}) {
      config.scale = scale;
      configs.push_back(config);
    }
  }
  AttentionConfig config = layer_config();
  config.use_qk_norm = true;
  configs.push_back(config);
  config.scale = 0.5;
  configs.push_back(config);
  config = layer_config();
  config.stacked_qkv = true;
  configs.push_back(config);
  config = layer_config();
  config.has_bias = true;
  config.dtype = config.kv_cache.dtype = ElementType::kBFloat16;
  configs.push_back(config);
  return configs;
}

TEST(Profiles, NormalLogitsArePeakedButNotOneHot) {
  for (const AttentionConfig& config : scaled_configs()) {
    const double deviation =
        standard_deviation(scaled_logits(make_case(spec_of(config, "normal"), 1)));
    EXPECT_GT(deviation, 1.5) << to_json(config);
    EXPECT_LT(deviation, 3.0) << to_json(config);
  }
}

/// The logit rows of one query head.
std::vector<LogitRow> rows_of_head(const Case& c, std::int64_t head) {
  std::vector<LogitRow> rows = scaled_logits(c);
  std::erase_if(rows, [head](const LogitRow& row) { return row.head != head; });
  return rows;
}

TEST(Profiles, QX4HasLogitsFourTimesAsLarge) {
  for (const AttentionConfig& config : scaled_configs()) {
    const double normal =
        standard_deviation(scaled_logits(make_case(spec_of(config, "normal"), 1)));
    const double large = standard_deviation(scaled_logits(make_case(spec_of(config, "q_x4"), 1)));
    EXPECT_NEAR(large / normal, 4.0, 0.1) << to_json(config);
  }
}

TEST(Profiles, RisingHasLargeQueriesInEverySecondHead) {
  for (const AttentionConfig& config : {layer_config(), attention_config()}) {
    const Case normal = make_case(spec_of(config, "normal"), 1);
    const Case large = make_case(spec_of(config, "rising"), 1);
    for (const std::int64_t head : {1, 3}) {
      EXPECT_NEAR(standard_deviation(rows_of_head(large, head)) /
                      standard_deviation(rows_of_head(normal, head)),
                  4.0, 0.25)
          << to_json(config);
    }
  }
}

/// Maxima that grow in every block of 16 keys, by less than 8 each time.
TEST(Profiles, RisingRisesInEveryOtherHead) {
  for (AttentionConfig config : {layer_config(), attention_config()}) {
    CaseSpec spec = spec_of(config, "rising");
    spec.rows = {{256, 8}};
    if (config.starts_at_attention()) spec.rows = {{8, 264}};
    const Case c = make_case(spec, 1);
    std::int64_t steps = 0, small = 0;
    for (const std::int64_t head : {0, 2}) {
      for (const LogitRow& row : rows_of_head(c, head)) {
        for (std::size_t p = 16; p + 16 <= 256; p += 16) {
          const auto at = row.logits.begin() + static_cast<std::ptrdiff_t>(p);
          const double growth = *std::max_element(at, at + 16) - *std::max_element(at - 16, at);
          small += growth > 4.0 && growth < 8.0 ? 1 : 0;
          ++steps;
        }
      }
    }
    EXPECT_GT(small, 0.95 * static_cast<double>(steps)) << to_json(config);
  }
}

/// In half of the sequences some rows must not see a key that outweighs all others by more than any
/// finite penalty.
TEST(Profiles, NeedlesHideAKeyThatNoPenaltyHides) {
  for (const AttentionConfig& config : {layer_config(), attention_config()}) {
    int towers = 0;
    for (std::uint64_t seed = 1; seed <= 16; ++seed) {
      const Case c = make_case(spec_of(config, "needles"), seed);
      for (const LogitRow& row : scaled_logits(c)) {
        if (row.sequence != 0 || row.index != 0 || row.head != 0) continue;
        const double visible = *std::max_element(row.logits.begin(), row.logits.end() - 7);
        towers += row.logits.back() > visible + 65504 ? 1 : 0;
      }
    }
    EXPECT_GE(towers, 4) << to_json(config);
    EXPECT_LE(towers, 12) << to_json(config);
  }
}

/// Keys on both sides of each edge stand out of the row's other keys, inside and outside of the
/// mask.
TEST(Profiles, NeedlesStandAtMaskAndPageEdges) {
  // Sequence 0 has rows at positions 40 .. 47 of 48 keys. Windows of 20: first row 21 .. 40, middle
  // row 25 .. 44, last row 28 .. 47. Page boundaries at 16 and 32.
  const std::set<std::int64_t> needles = {0,  15, 16, 20, 21, 24, 25, 27,
                                          28, 31, 32, 40, 41, 44, 45, 47};
  AttentionConfig normed = layer_config();
  normed.use_qk_norm = true;
  for (AttentionConfig config : {layer_config(), attention_config(), normed}) {
    config.mask.variant = MaskVariant::kSlidingWindowCausal;
    config.mask.window_size = 20;
    int outstanding = 0;
    int total = 0;
    for (std::uint64_t seed = 1; seed <= 8; ++seed) {
      for (const LogitRow& row : scaled_logits(make_case(spec_of(config, "needles"), seed))) {
        if (row.sequence != 0) continue;
        double largest_other = -1e300;
        for (std::int64_t p = 0; p < 48; ++p) {
          const double logit = row.logits[static_cast<std::size_t>(p)];
          if (!needles.contains(p)) largest_other = std::max(largest_other, logit);
        }
        for (const std::int64_t p : needles) {
          outstanding += row.logits[static_cast<std::size_t>(p)] > largest_other ? 1 : 0;
          ++total;
        }
      }
    }
    // A needle is some five standard deviations of the noise above the others.
    EXPECT_GT(outstanding, 0.99 * total) << to_json(config);
  }
}

TEST(Profiles, NeedlesCodePositionsIntoValues) {
  for (const AttentionConfig& config : {layer_config(), attention_config()}) {
    const Case c = make_case(spec_of(config, "needles"), 1);
    const Trace trace = reference::evaluate(c, reference::Mode::kExact);
    const std::vector<double> v = logical_values(c, *trace.cache).values();
    const std::int64_t width = config.v_width();
    double right = 0;
    for (std::int64_t p = 0; p < 48; ++p) {
      for (std::int64_t j = 0; j < width; ++j) {
        const bool bit = (p >> (j % 64 % 16) & 1) != 0;
        right += (v[static_cast<std::size_t>(p * width + j)] > 0) == bit ? 1 : 0;
      }
    }
    // +-2 with N(0, 1) on top: 97.7 % keep their sign.
    EXPECT_GT(right / static_cast<double>(48 * width), 0.95) << to_json(config);
  }
}

TEST(Profiles, ExtremeHasWholeRowsOfEitherSign) {
  for (const AttentionConfig& config : scaled_configs()) {
    int far_above = 0;
    int far_below = 0;
    for (const LogitRow& row : scaled_logits(make_case(spec_of(config, "extreme"), 1))) {
      const auto [low, high] = std::minmax_element(row.logits.begin(), row.logits.end());
      EXPECT_LT(std::max(std::abs(*low), std::abs(*high)), 4e4) << to_json(config);
      far_above += *low > 1000 ? 1 : 0;
      far_below += *high < -1000 ? 1 : 0;
    }
    EXPECT_GT(far_above, 0) << to_json(config);
    EXPECT_GT(far_below, 0) << to_json(config);
  }
}

TEST(Profiles, EqualKeysGiveEqualLogits) {
  for (const AttentionConfig& config : scaled_configs()) {
    for (const LogitRow& row : scaled_logits(make_case(spec_of(config, "equal_keys"), 1))) {
      for (const double logit : row.logits) EXPECT_EQ(logit, row.logits.front()) << to_json(config);
    }
  }
}

TEST(Profiles, TinyNormReachesRowsWhereEpsilonCounts) {
  AttentionConfig config = layer_config();
  config.use_qk_norm = true;
  config.has_bias = true;
  const Case c = make_case(spec_of(config, "tiny_norm"), 1);
  const Trace trace = reference::evaluate(c, reference::Mode::kExact);
  const std::vector<double> q = trace[Stage::kQProj].values();
  double smallest = 1e300;
  double largest = 0;
  for (std::size_t head = 0; head < q.size(); head += 64) {
    const double squares = std::inner_product(&q[head], &q[head] + 64, &q[head], 0.0);
    const double rms = std::sqrt(squares / 64);
    smallest = std::min(smallest, rms);
    largest = std::max(largest, rms);
  }
  EXPECT_LT(smallest, 1e-4);
  EXPECT_GT(largest, 0.1);
}

/// A sink that dominates every row, or none, could be dropped unseen. Rows of peaked logits differ
/// by more than the reach of one sink, so fewer of them are balanced.
TEST(Profiles, SinksLieNearTheLogSumExp) {
  const std::map<std::string, double> wanted = {{"normal", 0.5}, {"needles", 0.5}, {"q_x4", 0.25}};
  for (const auto& [profile, share] : wanted) {
    for (const AttentionConfig& config : {layer_config(), attention_config()}) {
      CaseSpec spec = spec_of(config, profile);
      const Trace without = reference::evaluate(make_case(spec, 1), reference::Mode::kExact);
      spec.sinks = true;
      const Case c = make_case(spec, 1);
      const std::vector<double> lse = without[Stage::kLse].values();
      int balanced = 0;  // the sink has a weight between 2 % and 98 %
      for (std::size_t i = 0; i < lse.size(); ++i) {
        const double sink = c.weights.at("sinks").value(static_cast<std::int64_t>(i % 4));
        balanced += std::abs(sink - lse[i]) < 4 ? 1 : 0;
      }
      EXPECT_GT(balanced, share * static_cast<double>(lse.size())) << profile << to_json(config);
    }
  }
}

/// exp(2 x) of float32 overflows from x = 44.4 on: each row has scores beyond it on both sides.
TEST(Profiles, OverClipPassesTheCapOnBothSides) {
  constexpr double kOverflow = 44.4;
  for (AttentionConfig config : {layer_config(), attention_config()}) {
    config.logit_softcap = 5.0;
    for (const LogitRow& row : scaled_logits(make_case(spec_of(config, "over_clip"), 1))) {
      const auto [least, most] = std::ranges::minmax(row.logits);
      if (row.logits.size() < 12) continue;
      EXPECT_LT(least, -kOverflow * 5.0) << to_json(config);
      EXPECT_GT(most, kOverflow * 5.0) << to_json(config);
    }
  }
}

/// Flat rows: the denominator is about the number of keys, and the values do not cancel.
TEST(Profiles, NearSinkIsFlatOverValuesOfOneSign) {
  for (const AttentionConfig& config : {layer_config(), attention_config()}) {
    CaseSpec spec = spec_of(config, "near_sink");
    spec.sinks = true;
    const Case c = make_case(spec, 1);
    EXPECT_LT(standard_deviation(scaled_logits(c)), 0.8) << to_json(config);
    const Trace trace = reference::evaluate(c, reference::Mode::kExact);
    const std::vector<double> v = trace[Stage::kCacheV].empty()
                                      ? logical_values(c, c.cache).values()
                                      : trace[Stage::kCacheV].values();
    double ones = 0;
    for (std::size_t i = 0; i < v.size(); ++i) {
      ones += v[i] * (i % 64 % 3 == 0 ? -1.0 : 1.0) / static_cast<double>(v.size());
    }
    EXPECT_NEAR(ones, 2.0, 0.5) << to_json(config);
  }
}

/// Rows whose scores are all 0, with heads whose sink is 0: equal to the bit.
TEST(Profiles, NearSinkTiesSinksWithScores) {
  for (const AttentionConfig& config : {layer_config(), attention_config()}) {
    CaseSpec spec = spec_of(config, "near_sink");
    spec.sinks = true;
    int zero_rows = 0;
    for (std::uint64_t seed = 1; seed <= 4; ++seed) {
      const Case c = make_case(spec, seed);
      EXPECT_EQ(c.weights.at("sinks").value(0), 0.0);
      EXPECT_NE(c.weights.at("sinks").value(1), 0.0);
      for (const LogitRow& row : rows_of_head(c, 0)) {
        const auto is_zero = [](double logit) { return logit == 0.0; };
        zero_rows += std::ranges::all_of(row.logits, is_zero) ? 1 : 0;
      }
    }
    EXPECT_GE(zero_rows, 8) << to_json(config);  // of 80
    EXPECT_LE(zero_rows, 40) << to_json(config);
  }
}

TEST(Profiles, AreListedWithALine) {
  EXPECT_EQ(list_profiles().size(), profiles().size());
  EXPECT_EQ(find_profile("q_x4").name, "q_x4") << "case files name it";
  for (const ProfileInfo& info : list_profiles()) {
    EXPECT_EQ(find_profile(info.name).summary, info.summary);
    EXPECT_FALSE(info.summary.empty());
  }
}

}  // namespace
}  // namespace attn::harness
