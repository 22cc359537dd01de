#include <algorithm>
#include <bit>
#include <cmath>

#include "harness/generate/profiles.h"
#include "harness/generate/steering.h"
#include "reference/core/philox.h"

namespace attn::harness {
namespace {

/// Half of the rows of x become sixteen times as large, and with them what a clip of activations
/// sees.
void pass_activation_clip(Draft& d) {
  constexpr int kExponent = 4;
  const std::int64_t width = d.config().hidden_size;
  const RandomStream stream(d.seed, "over_clip.x");
  for (std::int64_t t = 0; t < d.c.tokens(); ++t) {
    if (stream.below(static_cast<std::uint64_t>(t), 2) == 0) continue;
    scale_by_power_of_two(d.c.x, t * width, width, kExponent);
  }
}

/// One weight in sixteen becomes eight times as large.
void pass_weight_clip(Draft& d) {
  constexpr int kExponent = 3;
  for (const Projection projection : {Projection::kQ, Projection::kK, Projection::kV}) {
    const ProjectionRows rows = rows_of(d.config(), projection);
    Tensor& weight = d.c.weights.at(rows.weight);
    const RandomStream stream(d.seed, "over_clip." + rows.weight);
    for (std::int64_t i = rows.first * weight.dim(1); i < (rows.first + rows.count) * weight.dim(1);
         ++i) {
      if (stream.below(static_cast<std::uint64_t>(i), 16) != 0) continue;
      scale_by_power_of_two(weight, i, 1, kExponent);
    }
  }
}

/// Keys on either side of zero whose scores are a hundred times the cap: exp(2 score / cap) is
/// beyond float32.
void pass_softcap(Draft& d, double cap) {
  constexpr double kTimes = 100;
  const RandomStream stream(d.seed, "over_clip.k");
  steer(
      d, kTimes * cap, [](std::int64_t) { return 1.0; },
      [&](std::int64_t b, std::int64_t p) {
        const auto index = (static_cast<std::uint64_t>(b) << 32U) + static_cast<std::uint64_t>(p);
        return (stream.bits(index) & 1U) != 0 ? 1.0 : -1.0;
      });
}

/// About ln(keys), the same on every machine.
double rough_log(std::int64_t keys) {
  const int bits = static_cast<int>(std::bit_width(static_cast<std::uint64_t>(keys)));
  return 0.6931 * std::max(0.0, bits - 0.5);
}

double channel_sign(std::int64_t channel) { return channel % 3 == 0 ? -1.0 : 1.0; }

/// Adds +-2 to the values of each channel; new rows of a layer get theirs through column 2 of x.
void shift_values(Draft& d) {
  constexpr double kShift = 2.0;
  const AttentionConfig& config = d.config();
  for (std::int64_t i = 0; i < d.v.size(); ++i) {
    add(d.v, i, kShift * channel_sign(i % config.head_dim_v));
  }
  constexpr std::int64_t kColumn = 2;
  if (config.hidden_size <= kColumn) return;
  const ProjectionRows rows = rows_of(config, Projection::kV);
  Tensor& weight = d.c.weights.at(rows.weight);
  for (std::int64_t row = 0; row < rows.count; ++row) {
    weight.set_value((rows.first + row) * weight.dim(1) + kColumn,
                     kShift * channel_sign(row % config.head_dim_v));
  }
  for (std::int64_t t = 0; t < d.c.tokens(); ++t) {
    d.c.x.set_value(t * config.hidden_size + kColumn, 1.0);
  }
}

/// One row in four has queries of 0, and every fourth sink is 0: all its scores are equal, and
/// equal to the sink. A norm of zeros is NaN when its epsilon rounds to 0, and a bias is no 0.
void tie_sinks_with_scores(Draft& d) {
  constexpr std::int64_t kColumn = 2;  // of x, which shifts the values
  const AttentionConfig& config = d.config();
  if (config.use_qk_norm || config.has_bias || !d.c.has_sinks()) return;
  const RandomStream stream(d.seed, "near_sink.zero");
  Tensor& rows = config.starts_at_attention() ? d.c.q : d.c.x;
  const std::int64_t width = d.c.tokens() == 0 ? 0 : rows.size() / d.c.tokens();
  for (std::int64_t t = 0; t < d.c.tokens(); ++t) {
    if (stream.below(static_cast<std::uint64_t>(t), 4) != 0) continue;
    for (std::int64_t i = 0; i < width; ++i) {
      if (config.starts_at_attention() || i != kColumn) rows.set_value(t * width + i, 0.0);
    }
  }
  if (!config.starts_at_attention() && config.hidden_size > kColumn) {
    const ProjectionRows queries = rows_of(config, Projection::kQ);
    Tensor& weight = d.c.weights.at(queries.weight);
    for (std::int64_t row = queries.first; row < queries.first + queries.count; ++row) {
      weight.set_value(row * weight.dim(1) + kColumn, 0.0);
    }
  }
  Tensor& sinks = d.c.weights.at("sinks");
  for (std::int64_t head = 0; head < sinks.size(); head += 4) sinks.set_value(head, 0.0);
}

}  // namespace

void shape_over_clip(Draft& d) {
  if (d.config().weight_clip()) pass_weight_clip(d);
  if (d.config().clip_activations) {
    pass_activation_clip(d);
  } else if (d.config().logit_softcap) {
    pass_softcap(d, *d.config().logit_softcap);
  }
}

/// Sinks come drawn near the log-sum-exp of the longest sequence; here each head's lies near that
/// of another sequence.
void shape_near_sink(Draft& d) {
  shift_values(d);
  std::vector<double> logs;
  for (std::int64_t b = 0; b < d.c.batch(); ++b) {
    if (d.c.key_count(b) > 0) logs.push_back(rough_log(d.c.key_count(b)));
  }
  if (logs.empty()) return;
  const double longest = *std::ranges::max_element(logs);
  add_to_sinks(d, [&](std::int64_t head) {
    return logs[static_cast<std::size_t>(head) % logs.size()] - longest;
  });
  tie_sinks_with_scores(d);
}

}  // namespace attn::harness
