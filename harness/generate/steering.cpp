#include "harness/generate/steering.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace attn::harness {
namespace {

/// Sets columns 0 and 1 of a projection's rows for the steady channels: what x[:, 0] and x[:, 1]
/// add.
void set_steering_columns(Draft& d, Projection projection, double from_column_0,
                          double from_column_1) {
  const ProjectionRows rows = rows_of(d.config(), projection);
  Tensor& weight = d.c.weights.at(rows.weight);
  const std::int64_t columns = weight.dim(1);
  for (std::int64_t head = 0; head < rows.count / d.config().head_dim; ++head) {
    for (const std::int64_t channel : steady_channels(d.config())) {
      const std::int64_t row = rows.first + head * d.config().head_dim + channel;
      weight.set_value(row * columns, from_column_0);
      weight.set_value(row * columns + 1, from_column_1);
    }
  }
}

/// A norm weight below zero would turn the steady direction round.
void make_steady_norms_positive(Draft& d) {
  if (!d.config().use_qk_norm) return;
  for (const char* name : {"q_norm.weight", "k_norm.weight"}) {
    Tensor& weight = d.c.weights.at(name);
    for (const std::int64_t channel : steady_channels(d.config())) {
      weight.set_value(channel, std::abs(weight.value(channel)));
    }
  }
}

}  // namespace

std::vector<std::int64_t> steady_channels(const AttentionConfig& config) {
  if (config.head_dim < 2) return {0};
  if (config.starts_at_attention()) return {0, 1};
  const std::int64_t rotary = config.rotary_dim();
  const bool rotates_last = config.rope.rotary_side == RotarySide::kLast;
  if (config.head_dim - rotary >= 2) {
    const std::int64_t first = rotates_last ? 0 : rotary;
    return {first, first + 1};
  }
  const std::int64_t base = rotates_last ? config.head_dim - rotary : 0;
  if (config.rope.interleaved) return {base + rotary - 2, base + rotary - 1};
  return {base + rotary / 2 - 1, base + rotary - 1};
}

void add(Tensor& t, std::int64_t flat, double value) { t.set_value(flat, t.value(flat) + value); }

void scale_by_power_of_two(Tensor& t, std::int64_t first, std::int64_t count, int exponent) {
  for (std::int64_t i = first; i < first + count; ++i) {
    t.set_value(i, std::ldexp(t.value(i), exponent));
  }
}

void steer(Draft& d, double logit, const QueryStrength& query, const KeyStrength& key) {
  const AttentionConfig& config = d.config();
  const std::vector<std::int64_t> channels = steady_channels(config);
  const double scale = std::abs(config.softmax_scale());
  const auto width = static_cast<double>(channels.size());
  const double amplitude = scale > 0 ? std::sqrt(logit / (scale * width)) : 1.0;
  // A norm leaves a key that points this way sqrt(head_dim) long; cached keys are past the norm.
  const double in_cache =
      config.use_qk_norm ? std::sqrt(static_cast<double>(config.head_dim) / width) : amplitude;

  for (std::size_t b = 0; b < d.cached.size(); ++b) {
    for (std::int64_t p = 0; p < d.cached[b]; ++p) {
      const double strength = key(static_cast<std::int64_t>(b), p);
      if (strength == 0) continue;
      for (std::int64_t head = 0; head < config.num_key_value_heads; ++head) {
        const std::int64_t first =
            ((d.first_cached[b] + p) * config.num_key_value_heads + head) * config.head_dim;
        for (const std::int64_t channel : channels) add(d.k, first + channel, in_cache * strength);
      }
    }
  }
  if (config.starts_at_attention()) {
    for (std::int64_t row = 0; row < d.c.tokens() * config.num_attention_heads; ++row) {
      const double strength = query(row / config.num_attention_heads);
      for (const std::int64_t channel : channels) {
        add(d.c.q, row * config.head_dim + channel, amplitude * strength);
      }
    }
    return;
  }
  if (config.hidden_size < 2) return;
  set_steering_columns(d, Projection::kQ, amplitude, 0);
  set_steering_columns(d, Projection::kK, 0, amplitude);
  make_steady_norms_positive(d);
  for (std::int64_t b = 0; b < d.c.batch(); ++b) {
    for (std::int64_t i = 0; i < d.c.row_count(b); ++i) {
      const std::int64_t token = d.c.row_begin(b) + i;
      d.c.x.set_value(token * config.hidden_size, query(token));
      d.c.x.set_value(token * config.hidden_size + 1, key(b, d.c.cached(b) + i));
    }
  }
}

void drive_keys_alone(Draft& d) {
  constexpr std::int64_t kColumn = 1;
  const AttentionConfig& config = d.config();
  const std::vector<std::int64_t> steady = steady_channels(config);
  for (const Projection projection : {Projection::kQ, Projection::kK, Projection::kV}) {
    const ProjectionRows rows = rows_of(config, projection);
    Tensor& weight = d.c.weights.at(rows.weight);
    for (std::int64_t row = 0; row < rows.count; ++row) {
      const bool drives = projection == Projection::kK &&
                          std::ranges::find(steady, row % config.head_dim) != steady.end();
      if (!drives) weight.set_value((rows.first + row) * weight.dim(1) + kColumn, 0);
    }
  }
}

void add_to_sinks(Draft& d, const std::function<double(std::int64_t head)>& value) {
  if (!d.c.has_sinks()) return;
  Tensor& sinks = d.c.weights.at("sinks");
  for (std::int64_t head = 0; head < sinks.size(); ++head) add(sinks, head, value(head));
}

}  // namespace attn::harness
