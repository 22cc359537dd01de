#include "harness/generate/profiles.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <optional>
#include <set>
#include <string>

#include "harness/generate/steering.h"
#include "reference/core/error.h"
#include "reference/core/philox.h"

namespace attn::harness {
namespace {

/// Keys of sequence b on both sides of the mask's edges for its first, middle and last row, on both
/// sides of the first and the last page boundary, and the first and last key.
std::set<std::int64_t> edge_positions(const Case& c, std::int64_t b) {
  const MaskConfig& mask = c.config.mask;
  const std::int64_t keys = c.key_count(b);
  const std::int64_t rows = c.row_count(b);
  std::set<std::int64_t> edges = {0, keys - 1};
  const auto boundary = [&](std::int64_t first_inside) {
    edges.insert({first_inside - 1, first_inside});
  };
  for (const std::int64_t i : {std::int64_t{0}, rows / 2, rows - 1}) {
    const std::int64_t position = c.query_position(b, i);
    boundary(position + 1);
    if (mask.window_size) boundary(position - *mask.window_size + 1);
    if (mask.chunk_size && position >= 0) boundary(position / *mask.chunk_size * *mask.chunk_size);
  }
  const std::int64_t page = c.config.kv_cache.page_size;
  boundary(page);
  boundary((keys - 1) / page * page);
  std::erase_if(edges, [keys](std::int64_t p) { return p < 0 || p >= keys; });
  return edges;
}

constexpr std::int64_t kPositionBits = 16;

/// +1 or -1: bit `channel` mod 16 of the position.
double position_sign(std::int64_t position, std::int64_t channel) {
  return ((position >> (channel % kPositionBits)) & 1) != 0 ? 1.0 : -1.0;
}

/// Adds the bits of a key's position to its value, +-2 in channel d for bit d mod 16, so that an
/// output tells which keys it came from. New rows of a layer get theirs through columns 2 .. 17 of
/// x.
void code_positions_into_values(Draft& d) {
  constexpr double kWeight = 2.0;
  const AttentionConfig& config = d.config();
  const std::int64_t width = config.num_key_value_heads * config.head_dim_v;
  for (std::size_t b = 0; b < d.cached.size(); ++b) {
    for (std::int64_t p = 0; p < d.cached[b]; ++p) {
      for (std::int64_t j = 0; j < width; ++j) {
        add(d.v, (d.first_cached[b] + p) * width + j,
            kWeight * position_sign(p, j % config.head_dim_v));
      }
    }
  }
  if (config.starts_at_attention()) return;
  const std::int64_t bits = std::clamp<std::int64_t>(config.hidden_size - 2, 0, kPositionBits);
  const ProjectionRows rows = rows_of(config, Projection::kV);
  Tensor& weight = d.c.weights.at(rows.weight);
  for (std::int64_t row = 0; row < rows.count; ++row) {
    for (std::int64_t bit = 0; bit < bits; ++bit) {
      const bool own = row % config.head_dim_v % kPositionBits == bit;
      weight.set_value((rows.first + row) * weight.dim(1) + 2 + bit, own ? kWeight : 0.0);
    }
  }
  for (std::int64_t b = 0; b < d.c.batch(); ++b) {
    for (std::int64_t i = 0; i < d.c.row_count(b); ++i) {
      for (std::int64_t bit = 0; bit < bits; ++bit) {
        d.c.x.set_value((d.c.row_begin(b) + i) * config.hidden_size + 2 + bit,
                        position_sign(d.c.cached(b) + i, bit));
      }
    }
  }
}

/// Whether a key whose scaled logit is 10^5 fits into the types: float8 takes it where each token
/// has a scale of its own, float16 where it is not scaled down by less than 0.0875.
bool takes_towers(const AttentionConfig& config) {
  constexpr double kLeastScale = 0.0875;
  const bool fixed = config.quant && config.quant->activation == ActivationQuant::kStatic;
  if (config.logit_softcap || config.use_qk_norm || config.clip_activations || fixed) return false;
  const KvCacheConfig& cache = config.kv_cache;
  if (element_size(cache.dtype) == 1)
    return cache.scale_granularity == ScaleGranularity::kTokenHead;
  const bool half = config.dtype == ElementType::kFloat16 || cache.dtype == ElementType::kFloat16;
  return std::abs(config.softmax_scale()) > (half ? kLeastScale : 0.0);
}

/// A key of a sequence that some of its rows must not see: the last one where the first row comes
/// before it, else the first one where the last row's window or chunk begins after it.
std::optional<std::int64_t> hidden_key(const Case& c, std::int64_t b) {
  const MaskConfig& mask = c.config.mask;
  const std::int64_t rows = c.row_count(b);
  const std::int64_t last_key = c.key_count(b) - 1;
  if (rows == 0 || last_key < 1) return std::nullopt;
  const bool is_causal = mask.variant == MaskVariant::kCausal ||
                         mask.variant == MaskVariant::kChunkedCausal ||
                         mask.variant == MaskVariant::kSlidingWindowCausal;
  const std::int64_t first_row = c.query_position(b, 0);
  if (is_causal && first_row >= 0 && first_row < last_key) return last_key;
  const std::int64_t last_row = c.query_position(b, rows - 1);
  const bool is_past = (mask.window_size && last_row >= *mask.window_size) ||
                       (mask.chunk_size && last_row >= *mask.chunk_size);
  if (is_past) return 0;
  return std::nullopt;
}

/// Strength of the key of hidden_key: scaled logits of +100000, which no number of float16 hides
/// from a row that must not see it. Rows that see it see nothing else, so only half of the
/// sequences that can have one do.
constexpr double kTower = 6250;

void shape_needles(Draft& d) {
  constexpr double kLogit = 16.0;  // e^16: one needle outweighs millions of other keys
  std::vector<std::set<std::int64_t>> needles;
  for (std::int64_t b = 0; b < d.c.batch(); ++b) needles.push_back(edge_positions(d.c, b));
  const RandomStream stream(d.seed, "needles");
  const RandomStream tower_stream(d.seed, "needles.towers");
  const bool some = takes_towers(d.config()) && tower_stream.below(0, 4) != 0;
  std::vector<std::optional<std::int64_t>> towers;
  for (std::int64_t b = 0; b < d.c.batch(); ++b) {
    const bool has_one = some && tower_stream.below(static_cast<std::uint64_t>(b) + 1, 4) != 0;
    towers.push_back(has_one ? hidden_key(d.c, b) : std::nullopt);
  }
  // Different strengths, so that a needle too many or too few shows among others.
  const auto key = [&](std::int64_t b, std::int64_t p) {
    if (towers[static_cast<std::size_t>(b)] == p) return kTower;
    if (!needles[static_cast<std::size_t>(b)].contains(p)) return 0.0;
    return 0.875 + 0.25 * stream.uniform((static_cast<std::uint64_t>(b) << 32U) +
                                         static_cast<std::uint64_t>(p));
  };
  const double towards = d.config().softmax_scale() < 0 ? -1.0 : 1.0;
  steer(
      d, kLogit, [towards](std::int64_t) { return towards; }, key);
  const bool has_tower = std::ranges::any_of(towers, [](const auto& p) { return p.has_value(); });
  if (has_tower && !d.config().starts_at_attention()) drive_keys_alone(d);
  code_positions_into_values(d);
  const double in_reach = std::min(kLogit, d.config().logit_softcap.value_or(kLogit));
  add_to_sinks(d, [in_reach](std::int64_t) { return in_reach; });
}

/// Doubles a norm weight until normalised queries and keys reach scaled logits of about `logit`, or
/// the weight 2^11, which leaves float16 room for sqrt(head_dim) times it.
void grow_query_norm(Draft& d, double logit) {
  Tensor& weight = d.c.weights.at("q_norm.weight");
  const double width =
      std::abs(d.config().softmax_scale()) * static_cast<double>(d.config().head_dim);
  int exponent = 0;
  while (std::ldexp(d.q_gain, exponent) < std::min(logit / width, 0x1p11)) ++exponent;
  scale_by_power_of_two(weight, 0, weight.size(), exponent);
}

void shape_extreme(Draft& d) {
  constexpr double kLogit = 1e4;
  const RandomStream stream(d.seed, "extreme");
  const auto row_sign = [&](std::int64_t token) {
    return (stream.bits(static_cast<std::uint64_t>(token)) & 1U) != 0 ? 1.0 : -1.0;
  };
  if (d.config().use_qk_norm) grow_query_norm(d, kLogit);
  steer(d, kLogit, row_sign, [](std::int64_t, std::int64_t) { return 1.0; });
  if (d.config().logit_softcap) return;
  add_to_sinks(d, [](std::int64_t head) { return head % 2 == 0 ? kLogit : -kLogit; });
}

void fill_zero(Tensor& t, std::int64_t first, std::int64_t count) {
  for (std::int64_t i = first; i < first + count; ++i) t.set_value(i, 0.0);
}

/// RoPE would turn equal keys apart, so a layer's keys are zero: after the norm where there is one,
/// since a norm of zeros is NaN when rms_norm_eps rounds to zero in float16.
void shape_equal_keys(Draft& d) {
  const AttentionConfig& config = d.config();
  const std::int64_t width = config.k_width();
  if (config.starts_at_attention()) {
    for (std::int64_t i = width; i < d.k.size(); ++i) d.k.set_code(i, d.k.code(i % width));
    return;
  }
  fill_zero(d.k, 0, d.k.size());
  if (config.use_qk_norm) {
    fill_zero(d.c.weights.at("k_norm.weight"), 0, config.head_dim);
    return;
  }
  const ProjectionRows rows = rows_of(config, Projection::kK);
  Tensor& weight = d.c.weights.at(rows.weight);
  fill_zero(weight, rows.first * weight.dim(1), rows.count * weight.dim(1));
  if (config.has_bias) fill_zero(d.c.weights.at("k_proj.bias"), 0, width);
}

/// Rows of x (or q) from 1 down to 2^-17, about 1e-5; a bias would hide them, so it shrinks as
/// well.
void shape_tiny_norm(Draft& d) {
  constexpr int kSmallest = 17;
  Tensor& rows = d.config().starts_at_attention() ? d.c.q : d.c.x;
  const std::int64_t tokens = d.c.tokens();
  const RandomStream stream(d.seed, "tiny_norm");
  for (std::int64_t t = 0; t < tokens; ++t) {
    const std::int64_t width = rows.size() / tokens;
    const auto exponent =
        static_cast<int>(stream.below(static_cast<std::uint64_t>(t), kSmallest + 1));
    scale_by_power_of_two(rows, t * width, width, -exponent);
  }
  for (const char* name : {"q_proj.bias", "k_proj.bias"}) {
    const auto bias = d.c.weights.find(name);
    if (bias == d.c.weights.end()) continue;
    scale_by_power_of_two(bias->second, 0, bias->second.size(), -kSmallest);
  }
}

constexpr std::array kProfiles = {
    Profile{"normal", "N(0, 1) data, scaled logits with a standard deviation of 2", 2.0, nullptr},
    Profile{"rising",
            "logits that rise from key to key in every second head, queries four times as large in "
            "the others: maxima that grow in every block, peaked rows",
            8.0, shape_rising},
    Profile{
        "needles",
        "keys that dominate on both sides of every mask and page edge, hidden ones that no finite "
        "penalty hides, values that code positions",
        1.0, shape_needles},
    Profile{"extreme", "whole rows of logits near +10000 and near -10000", 2.0, shape_extreme},
    Profile{"equal_keys", "all keys of a sequence equal: the mean of the values (degenerate)", 2.0,
            shape_equal_keys},
    Profile{"tiny_norm", "rows scaled down to 1e-5, where rms_norm_eps counts", 2.0,
            shape_tiny_norm},
    Profile{"fp8_range",
            "channels from 2^-6 to 2^10, rows of zeros: saturated, subnormal and capped fp8 codes",
            2.0, shape_fp8_range},
    Profile{"over_clip",
            "activations and weights beyond their clip, scores far past the soft-cap on both sides",
            2.0, shape_over_clip},
    Profile{"near_sink",
            "flat rows over values of one sign, sinks near their log-sum-exp or equal to every "
            "score: denominators show",
            0.5, shape_near_sink},
    Profile{"code_extremes", "weight blocks of one sign, of two values, of small and no magnitude",
            2.0, shape_code_extremes},
};

/// What the queries of "rising" are a part of. Every bug that it showed others show too, so no gate
/// has it; case files name it.
constexpr Profile kQX4{"q_x4", "queries four times as large: peaked rows, soft-caps that bind", 8.0,
                       nullptr};

}  // namespace

std::span<const Profile> profiles() { return kProfiles; }

const Profile& find_profile(std::string_view name) {
  const auto* const found =
      std::find_if(kProfiles.begin(), kProfiles.end(),
                   [name](const Profile& profile) { return profile.name == name; });
  if (found != kProfiles.end()) return *found;
  if (name == kQX4.name) return kQX4;
  std::vector<std::string> names;
  names.reserve(kProfiles.size());
  for (const Profile& profile : kProfiles) names.emplace_back(profile.name);
  throw Error(ErrorKind::kConfig,
              "profile: \"" + std::string(name) + "\" is not a data profile" + hint(name, names),
              "profile");
}

std::vector<ProfileInfo> list_profiles() {
  std::vector<ProfileInfo> infos;
  infos.reserve(kProfiles.size());
  for (const Profile& profile : kProfiles) {
    infos.push_back({std::string(profile.name), std::string(profile.summary)});
  }
  return infos;
}

}  // namespace attn::harness
