#include "harness/compare/rope_table_bound.h"

#include <cmath>

namespace attn::harness {
namespace {

/// Float32 operations between theta and inv_j, beyond the one that every table has.
double extra_roundings(const AttentionConfig& config) {
  switch (config.rope.scaling.type) {
    case RopeScalingType::kDefault:
    case RopeScalingType::kDynamic:
      return 0.0;
    case RopeScalingType::kLinear:
    case RopeScalingType::kLongrope:
      return 1.0;
    case RopeScalingType::kLlama3:
    case RopeScalingType::kYarn:
      return 3.0;
    case RopeScalingType::kDeepseekYarn:  // a rounded theta and exponent: theta^e moves by e
                                          // ln(theta)
      return 7.0 + std::log(config.rope.theta);
  }
  return 0.0;
}

/// Error of the blend's weight in units of 2^-24; the weight multiplies at most the unscaled inv_j.
/// That of llama3 is (original / wavelength - low) / (high - low): four roundings of a quotient up
/// to high.
double blend_error(const RopeScaling& scaling) {
  switch (scaling.type) {
    case RopeScalingType::kLlama3: {
      const double width = scaling.high_freq_factor - scaling.low_freq_factor;
      return width == 0.0 ? 0.0 : 4.0 * std::abs(scaling.high_freq_factor / width);
    }
    case RopeScalingType::kYarn:
    case RopeScalingType::kDeepseekYarn:
      return 2.0;
    default:
      return 0.0;
  }
}

}  // namespace

RopeTableBound::RopeTableBound(const AttentionConfig& config, const Arithmetic& arithmetic)
    : frequencies_(
          reference::rope_frequencies(config, reference::Rounding(reference::Mode::kExact))),
      frequency_error_(static_cast<std::size_t>(config.rotary_dim() / 2), 0.0) {
  if (!arithmetic.float32_frequencies) return;
  const double roundings = extra_roundings(config), blend = blend_error(config.rope.scaling);
  for (std::size_t j = 0; j < frequency_error_.size(); ++j) {
    const double exponent = 2.0 * static_cast<double>(j) / static_cast<double>(config.rotary_dim());
    frequency_error_[j] =
        roundings * frequencies_.below[j] + blend * std::pow(config.rope.theta, -exponent);
    if (!frequencies_.beyond.empty()) {
      frequency_error_[j] = std::max(frequency_error_[j], roundings * frequencies_.beyond[j]);
    }
  }
}

double RopeTableBound::entry(std::int64_t p, std::int64_t column) const {
  const double inv = frequencies_.inv_freq(p)[static_cast<std::size_t>(column / 2)];
  const double angle = static_cast<double>(p) * inv;
  return round_to(ElementType::kFloat32, frequencies_.attention_factor *
                                             (column % 2 == 0 ? std::cos(angle) : std::sin(angle)));
}

double RopeTableBound::bound(std::int64_t p, std::int64_t pair) const {
  const auto j = static_cast<std::size_t>(pair);
  const double position = static_cast<double>(p);
  return std::abs(frequencies_.attention_factor) *
         (0x1p-23 * (1.0 + position * frequencies_.inv_freq(p)[j]) +
          0x1p-24 * position * frequency_error_[j]);
}

}  // namespace attn::harness
