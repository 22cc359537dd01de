#include "reference/stages/rope_scaling.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numbers>

namespace attn::reference {
namespace {

/// One evaluation's rope config, with n = rotary_dim channels, and its rounding to float32.
struct Rope {
  const RopeConfig& config;
  const RopeScaling& scaling;
  std::int64_t n;
  Rounding r;

  double f32(double v) const { return r.to(ElementType::kFloat32, v); }
  std::int64_t pairs() const { return n / 2; }
  /// 2j / n
  double exponent(std::int64_t j) const {
    return 2.0 * static_cast<double>(j) / static_cast<double>(n);
  }
};

/// inv_j = theta^(-2j/n) (Su et al. 2021, section 3.2.2).
std::vector<double> default_frequencies(const Rope& rope) {
  std::vector<double> inv;
  for (std::int64_t j = 0; j < rope.pairs(); ++j) {
    inv.push_back(rope.f32(1.0 / std::pow(rope.config.theta, rope.exponent(j))));
  }
  return inv;
}

/// Positions divided by the factor (Chen et al. 2023, position interpolation).
std::vector<double> linear_frequencies(const Rope& rope) {
  std::vector<double> inv = default_frequencies(rope);
  for (double& f : inv) {
    f = rope.f32(f / rope.scaling.factor);
  }
  return inv;
}

/// The layer's dynamic rope makes the table longer and leaves the frequencies alone.
std::vector<double> dynamic_frequencies(const Rope& rope) { return default_frequencies(rope); }

/// Llama 3.1: wavelengths shorter than original/high keep their frequency, those longer than
/// original/low are slowed by the factor, those between are blended.
std::vector<double> llama3_frequencies(const Rope& rope) {
  const double factor = rope.scaling.factor;
  const double low = rope.scaling.low_freq_factor;
  const double high = rope.scaling.high_freq_factor;
  const auto original = static_cast<double>(rope.scaling.original_max_position_embeddings);

  std::vector<double> inv = default_frequencies(rope);
  for (double& f : inv) {
    const double wavelength = rope.f32(2.0 * std::numbers::pi / f);
    if (wavelength < rope.f32(original / high)) {
      continue;
    }
    const double slowed = rope.f32(f / factor);
    if (wavelength > rope.f32(original / low)) {
      f = slowed;
    } else {
      const double u = low == high ? 0.0 : rope.f32((original / wavelength - low) / (high - low));
      f = rope.f32((1.0 - u) * slowed + u * f);
    }
  }
  return inv;
}

/// The pair, as a real number, that makes `rotations` turns over the original length:
/// n ln(original / (2 pi rotations)) / (2 ln theta)  (Peng et al. 2023, YaRN, equation 17 ff.).
double correction_pair(const Rope& rope, double rotations, double theta) {
  const auto original = static_cast<double>(rope.scaling.original_max_position_embeddings);
  return rope.f32(static_cast<double>(rope.n) *
                  std::log(original / (2.0 * std::numbers::pi * rotations)) /
                  (2.0 * std::log(theta)));
}

/// YaRN's "NTK by parts": pairs before `first` keep their frequency, pairs from `last` on are
/// slowed by the factor, a linear ramp between. `inv` holds theta^(-2j/n).
std::vector<double> blend_by_parts(const Rope& rope, std::vector<double> inv, double theta) {
  const double first =
      std::max(std::floor(correction_pair(rope, rope.scaling.beta_fast, theta)), 0.0);
  const double last =
      std::min(std::trunc(correction_pair(rope, rope.scaling.beta_slow, theta)) + 1.0,
               static_cast<double>(rope.n - 1));
  const double width = last == first ? 0.001 : last - first;

  for (std::size_t j = 0; j < inv.size(); ++j) {
    const double ramp = rope.f32(std::clamp((static_cast<double>(j) - first) / width, 0.0, 1.0));
    const double slowed = rope.f32(inv[j] / rope.scaling.factor);
    inv[j] = rope.f32(slowed * ramp + inv[j] * (1.0 - ramp));
  }
  return inv;
}

/// YaRN's attention factor for a context stretched by `factor`: 0.1 m ln(factor) + 1.
double yarn_mscale(double factor, double m) {
  return factor <= 1.0 ? 1.0 : 0.1 * m * std::log(factor) + 1.0;
}

RopeFrequencies yarn_frequencies(const Rope& rope) {
  RopeFrequencies f;
  f.below = blend_by_parts(rope, default_frequencies(rope), rope.config.theta);
  f.attention_factor = rope.f32(yarn_mscale(rope.scaling.factor, 1.0));
  return f;
}

/// DeepSeek's YaRN: theta's integer part in the correction, float32 powers, and the ratio of two
/// factors.
RopeFrequencies deepseek_yarn_frequencies(const Rope& rope) {
  std::vector<double> inv;
  for (std::int64_t j = 0; j < rope.pairs(); ++j) {
    const double power =
        rope.f32(std::pow(rope.f32(rope.config.theta), rope.f32(rope.exponent(j))));
    inv.push_back(rope.f32(1.0 / power));
  }
  RopeFrequencies f;
  f.below = blend_by_parts(rope, std::move(inv), std::trunc(rope.config.theta));
  f.attention_factor = rope.f32(yarn_mscale(rope.scaling.factor, rope.scaling.mscale) /
                                yarn_mscale(rope.scaling.factor, rope.scaling.mscale_all_dim));
  return f;
}

std::vector<double> divided(const Rope& rope, const std::vector<double>& inv,
                            const std::vector<double>& factors) {
  std::vector<double> out;
  for (std::size_t j = 0; j < inv.size(); ++j) {
    out.push_back(rope.f32(inv[j] / factors[j]));
  }
  return out;
}

/// LongRoPE (Ding et al. 2024): a factor per pair. "transformers" takes one list for the whole
/// table and stretches cos and sin by sqrt(1 + ln(max/original) / ln(original)); "max" changes list
/// at the original length and stretches nothing.
RopeFrequencies longrope_frequencies(const Rope& rope) {
  const RopeScaling& s = rope.scaling;
  const std::vector<double> inv = default_frequencies(rope);
  RopeFrequencies f;
  if (s.convention == LongropeConvention::kMax) {
    f.below = divided(rope, inv, s.short_factor);
    f.beyond = divided(rope, inv, s.long_factor);
    f.boundary = s.original_max_position_embeddings;
    return f;
  }
  f.below = divided(rope, inv, s.use_long ? s.long_factor : s.short_factor);
  const auto original = static_cast<double>(s.original_max_position_embeddings);
  const double stretch = static_cast<double>(s.max_position_embeddings) / original;
  if (stretch > 1.0) {
    f.attention_factor = rope.f32(std::sqrt(1.0 + std::log(stretch) / std::log(original)));
  }
  return f;
}

}  // namespace

RopeFrequencies rope_frequencies(const AttentionConfig& config, Rounding r) {
  const Rope rope{config.rope, config.rope.scaling, config.rotary_dim(), r};
  switch (rope.scaling.type) {
    case RopeScalingType::kDefault:
      return {.below = default_frequencies(rope)};
    case RopeScalingType::kLinear:
      return {.below = linear_frequencies(rope)};
    case RopeScalingType::kDynamic:
      return {.below = dynamic_frequencies(rope)};
    case RopeScalingType::kLlama3:
      return {.below = llama3_frequencies(rope)};
    case RopeScalingType::kYarn:
      return yarn_frequencies(rope);
    case RopeScalingType::kDeepseekYarn:
      return deepseek_yarn_frequencies(rope);
    case RopeScalingType::kLongrope:
      return longrope_frequencies(rope);
  }
  return {};
}

}  // namespace attn::reference
