#include "golden/second_rope_table.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

namespace attn::golden {
namespace {

using Real = long double;
constexpr Real kTwoPi = 2 * std::numbers::pi_v<Real>;

/// theta^(-2j/n).
Real plain_frequency(const AttentionConfig& config, std::int64_t j) {
  const auto n = static_cast<Real>(config.rotary_dim());
  return std::pow(static_cast<Real>(config.rope.theta), -2 * static_cast<Real>(j) / n);
}

Real llama3_frequency(const RopeScaling& s, Real frequency) {
  const auto original = static_cast<Real>(s.original_max_position_embeddings);
  const Real low = s.low_freq_factor;
  const Real high = s.high_freq_factor;
  const Real wavelength = kTwoPi / frequency;
  if (wavelength < original / high) return frequency;
  if (wavelength > original / low) return frequency / s.factor;
  const Real u = low == high ? 0 : (original / wavelength - low) / (high - low);
  return (1 - u) * frequency / s.factor + u * frequency;
}

/// The channel pair that turns `rotations` times over the original length.
Real yarn_pair(const RopeScaling& s, Real n, Real theta, Real rotations) {
  const auto original = static_cast<Real>(s.original_max_position_embeddings);
  return n * std::log(original / (kTwoPi * rotations)) / (2 * std::log(theta));
}

Real yarn_frequency(const AttentionConfig& config, std::int64_t j, Real frequency) {
  const RopeScaling& s = config.rope.scaling;
  const auto n = static_cast<Real>(config.rotary_dim());
  Real theta = config.rope.theta;
  if (s.type == RopeScalingType::kDeepseekYarn) theta = std::trunc(theta);
  const Real low = std::max<Real>(std::floor(yarn_pair(s, n, theta, s.beta_fast)), 0);
  const Real high = std::min(std::trunc(yarn_pair(s, n, theta, s.beta_slow)) + 1, n - 1);
  const Real width = high == low ? Real{1} / 1000 : high - low;
  const Real ramp = std::clamp<Real>((static_cast<Real>(j) - low) / width, 0, 1);
  const Real keep = 1 - ramp;
  return frequency / s.factor * (1 - keep) + frequency * keep;
}

Real longrope_frequency(const RopeScaling& s, std::int64_t j, std::int64_t position,
                        Real frequency) {
  const bool use_long = s.convention == LongropeConvention::kMax
                            ? position >= s.original_max_position_embeddings
                            : s.use_long;
  return frequency / (use_long ? s.long_factor : s.short_factor).at(static_cast<std::size_t>(j));
}

Real frequency(const AttentionConfig& config, std::int64_t j, std::int64_t position) {
  const RopeScaling& s = config.rope.scaling;
  const Real plain = plain_frequency(config, j);
  switch (s.type) {
    case RopeScalingType::kDefault:
    case RopeScalingType::kDynamic:
      return plain;
    case RopeScalingType::kLinear:
      return plain / s.factor;
    case RopeScalingType::kLlama3:
      return llama3_frequency(s, plain);
    case RopeScalingType::kYarn:
    case RopeScalingType::kDeepseekYarn:
      return yarn_frequency(config, j, plain);
    case RopeScalingType::kLongrope:
      return longrope_frequency(s, j, position, plain);
  }
  return plain;
}

Real yarn_magnitude(Real factor, Real weight) {
  return factor <= 1 ? 1 : weight / 10 * std::log(factor) + 1;
}

/// What cos and sin are multiplied by.
Real magnitude(const RopeScaling& s) {
  switch (s.type) {
    case RopeScalingType::kYarn:
      return yarn_magnitude(s.factor, 1);
    case RopeScalingType::kDeepseekYarn:
      return yarn_magnitude(s.factor, s.mscale) / yarn_magnitude(s.factor, s.mscale_all_dim);
    case RopeScalingType::kLongrope: {
      const auto original = static_cast<Real>(s.original_max_position_embeddings);
      const auto longest = static_cast<Real>(s.max_position_embeddings);
      if (s.convention == LongropeConvention::kMax || longest <= original) return 1;
      return std::sqrt(1 + std::log(longest / original) / std::log(original));
    }
    default:
      return 1;
  }
}

}  // namespace

Tensor second_rope_table(const Case& c) {
  const std::int64_t positions = c.freqs_cis.dim(0);
  const Real m = magnitude(c.config.rope.scaling);
  std::vector<double> values;
  for (std::int64_t p = 0; p < positions; ++p) {
    for (std::int64_t j = 0; j < c.config.rotary_dim() / 2; ++j) {
      const Real angle = static_cast<Real>(p) * frequency(c.config, j, p);
      values.push_back(static_cast<float>(std::cos(angle) * m));
      values.push_back(static_cast<float>(std::sin(angle) * m));
    }
  }
  return Tensor::from_values(ElementType::kFloat64, {positions, c.config.rotary_dim()}, values);
}

}  // namespace attn::golden
