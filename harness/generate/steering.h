#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "harness/generate/draft.h"

namespace attn::harness {

void add(Tensor& t, std::int64_t flat, double value);
void scale_by_power_of_two(Tensor& t, std::int64_t first, std::int64_t count, int exponent);

/// Two channels of a head that RoPE turns least: two that it leaves alone, else the slowest pair.
std::vector<std::int64_t> steady_channels(const AttentionConfig& config);

using QueryStrength = std::function<double(std::int64_t token)>;
using KeyStrength = std::function<double(std::int64_t sequence, std::int64_t position)>;

/// Adds a common direction to queries and keys: the scaled logit of row t and key p of sequence b
/// grows by query(t) * key(b, p) * logit, up to rotation, clips and norms. New rows of a layer get
/// theirs through x: column 0 drives q, column 1 drives k.
void steer(Draft& d, double logit, const QueryStrength& query, const KeyStrength& key);

/// The column of x that drives steer()'s keys drives nothing else: for strengths far above 1.
void drive_keys_alone(Draft& d);

/// Adds value(head) to each sink, where the case has sinks.
void add_to_sinks(Draft& d, const std::function<double(std::int64_t head)>& value);

}  // namespace attn::harness
