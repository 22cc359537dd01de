#include <algorithm>
#include <vector>

#include "harness/generate/profiles.h"
#include "harness/generate/steering.h"

namespace attn::harness {
namespace {

/// Scales what makes the queries of a head.
void scale_queries(Draft& d, std::int64_t head, int exponent) {
  const AttentionConfig& config = d.config();
  const std::int64_t width = config.head_dim;
  if (config.starts_at_attention()) {
    for (std::int64_t t = 0; t < d.c.tokens(); ++t) {
      scale_by_power_of_two(d.c.q, (t * config.num_attention_heads + head) * width, width,
                            exponent);
    }
    return;
  }
  const ProjectionRows rows = rows_of(config, Projection::kQ);
  Tensor& weight = d.c.weights.at(rows.weight);
  scale_by_power_of_two(weight, (rows.first + head * width) * weight.dim(1), width * weight.dim(1),
                        exponent);
  if (config.has_bias)
    scale_by_power_of_two(d.c.weights.at("q_proj.bias"), head * width, width, exponent);
}

/// Clears the channels of a head's queries that steer() uses.
void clear_steering(Draft& d, std::int64_t head) {
  const AttentionConfig& config = d.config();
  for (const std::int64_t channel : steady_channels(config)) {
    const std::int64_t row = head * config.head_dim + channel;
    if (config.starts_at_attention()) {
      for (std::int64_t t = 0; t < d.c.tokens(); ++t)
        d.c.q.set_value(t * config.q_width() + row, 0);
      continue;
    }
    const ProjectionRows rows = rows_of(config, Projection::kQ);
    Tensor& weight = d.c.weights.at(rows.weight);
    for (std::int64_t k = 0; k < weight.dim(1); ++k) {
      weight.set_value((rows.first + row) * weight.dim(1) + k, 0);
    }
    if (config.has_bias) d.c.weights.at("q_proj.bias").set_value(row, 0);
  }
}

/// Whether keys thousands of times as large as the others reach the scores as they are.
bool takes_large_keys(const AttentionConfig& config) {
  const bool rounds = config.quant && config.quant->activation != ActivationQuant::kNone;
  return !config.logit_softcap && !config.use_qk_norm && !config.clip_activations && !rounds &&
         config.softmax_scale() != 0 && element_size(config.kv_cache.dtype) > 1;
}

}  // namespace

/// Every second head, the first among them, gets small queries and logits that rise by 0.4 a key:
/// a maximum that grows in every block of keys and never by much.
void shape_rising(Draft& d) {
  constexpr double kRise = 0.4;
  constexpr int kSmaller = -5;  // from a standard deviation of 8 to 1/4
  const AttentionConfig& config = d.config();
  if (!takes_large_keys(config) || (!config.starts_at_attention() && config.hidden_size < 2)) {
    return;
  }
  for (std::int64_t head = 0; head < config.num_attention_heads; head += 2) {
    scale_queries(d, head, kSmaller);
  }
  const double towards = config.softmax_scale() < 0 ? -1.0 : 1.0;
  steer(
      d, 1.0, [towards](std::int64_t) { return towards; },
      [](std::int64_t, std::int64_t p) { return kRise * static_cast<double>(p); });
  if (!config.starts_at_attention()) drive_keys_alone(d);
  for (std::int64_t head = 1; head < config.num_attention_heads; head += 2) {
    clear_steering(d, head);
  }
  if (!d.c.has_sinks()) return;
  std::int64_t longest = 0;
  for (std::int64_t b = 0; b < d.c.batch(); ++b) longest = std::max(longest, d.c.key_count(b));
  Tensor& sinks = d.c.weights.at("sinks");
  for (std::int64_t head = 0; head < sinks.size(); head += 2) {
    sinks.set_value(head, kRise * static_cast<double>(longest));
  }
}

}  // namespace attn::harness
