#include "harness/backends/cpu/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "harness/backends/cpu/fault_switch.h"

namespace attn::harness::cpu {
namespace {

/// Frequencies inv[j], j < rotary_dim / 2, and what cos and sin are multiplied with.
struct Spectrum {
  std::vector<double> inv;
  double attention_factor = 1.0;
};

std::vector<double> plain_frequencies(double theta, std::int64_t rotary_dim) {
  std::vector<double> inv(static_cast<std::size_t>(rotary_dim / 2));
  for (std::size_t j = 0; j < inv.size(); ++j) {
    inv[j] = std::pow(theta, -2.0 * static_cast<double>(j) / static_cast<double>(rotary_dim));
  }
  return inv;
}

/// Llama 3: long wavelengths are stretched by `factor`, short ones kept, those between blended.
double llama3_frequency(const RopeScaling& s, double inv) {
  const double original = static_cast<double>(s.original_max_position_embeddings);
  const double wavelength = 2.0 * std::numbers::pi / inv;
  if (ATTN_FAULT(rope_llama3_factors_swapped, wavelength > original / s.high_freq_factor)) {
    return wavelength > original / s.low_freq_factor ? inv : inv / s.factor;
  }
  if (wavelength < original / s.high_freq_factor) return inv;
  if (wavelength > original / s.low_freq_factor) return inv / s.factor;
  const double width = s.high_freq_factor - s.low_freq_factor;
  const double keep = width == 0.0 ? 0.0 : (original / wavelength - s.low_freq_factor) / width;
  if (ATTN_FAULT(rope_llama3_not_blended, keep != 0.0)) return inv;
  return (1.0 - keep) * inv / s.factor + keep * inv;
}

/// YaRN (Peng et al., 2023), section 3.2: channel pairs that turn more than beta_fast times within
/// the original length are kept, those that turn less than beta_slow times are divided by `factor`.
void blend_yarn(const RopeScaling& s, double theta, std::int64_t rotary_dim,
                std::vector<double>& inv) {
  const double n = static_cast<double>(rotary_dim);
  const double original = static_cast<double>(s.original_max_position_embeddings);
  const auto pair_turning = [&](double turns) {
    return n * std::log(original / (turns * 2.0 * std::numbers::pi)) / (2.0 * std::log(theta));
  };
  const double low = std::max(std::floor(pair_turning(s.beta_fast)), 0.0);
  double high = std::min(std::trunc(pair_turning(s.beta_slow)) + 1.0, n - 1.0);
  if (ATTN_FAULT(rope_yarn_not_rounded_up, pair_turning(s.beta_slow) < n - 1.0)) high -= 1.0;
  const double width = high == low ? 0.001 : high - low;
  for (std::size_t j = 0; j < inv.size(); ++j) {
    double ramp = std::clamp((static_cast<double>(j) - low) / width, 0.0, 1.0);
    if (ATTN_FAULT(rope_yarn_ramp_reversed)) ramp = 1.0 - ramp;
    inv[j] = inv[j] / s.factor * ramp + inv[j] * (1.0 - ramp);
  }
}

double yarn_magnitude(double factor, double mscale) {
  return factor <= 1.0 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
}

double longrope_factor(const RopeScaling& s) {
  const double ratio = static_cast<double>(s.max_position_embeddings) /
                       static_cast<double>(s.original_max_position_embeddings);
  if (ratio <= 1.0) return 1.0;
  return std::sqrt(1.0 + std::log(ratio) /
                             std::log(static_cast<double>(s.original_max_position_embeddings)));
}

/// The spectrum of the table's row `position`; only longrope's convention "max" depends on it.
Spectrum spectrum_at(const RopeConfig& rope, std::int64_t rotary_dim, std::int64_t position) {
  const RopeScaling& s = rope.scaling;
  Spectrum result{plain_frequencies(rope.theta, rotary_dim), 1.0};
  switch (s.type) {
    case RopeScalingType::kDefault:
    case RopeScalingType::kDynamic:
      break;
    case RopeScalingType::kLinear:
      for (double& inv : result.inv) inv /= ATTN_FAULT(rope_linear_ignored) ? 1.0 : s.factor;
      break;
    case RopeScalingType::kLlama3:
      for (double& inv : result.inv) inv = llama3_frequency(s, inv);
      break;
    case RopeScalingType::kYarn:
      blend_yarn(s, rope.theta, rotary_dim, result.inv);
      if (ATTN_FAULT(rope_yarn_magnitude_dropped)) break;
      result.attention_factor = yarn_magnitude(s.factor, 1.0);
      break;
    case RopeScalingType::kDeepseekYarn:
      blend_yarn(s, std::trunc(rope.theta), rotary_dim, result.inv);
      result.attention_factor = yarn_magnitude(s.factor, s.mscale);
      if (ATTN_FAULT(rope_yarn_mscale_all_dim_dropped)) break;
      result.attention_factor /= yarn_magnitude(s.factor, s.mscale_all_dim);
      break;
    case RopeScalingType::kLongrope: {
      const bool max_convention = s.convention == LongropeConvention::kMax;
      bool use_long = max_convention ? position >= s.original_max_position_embeddings : s.use_long;
      if (ATTN_FAULT(rope_longrope_always_short, use_long)) use_long = false;
      const std::vector<double>& divisors = use_long ? s.long_factor : s.short_factor;
      for (std::size_t j = 0; j < result.inv.size(); ++j) result.inv[j] /= divisors.at(j);
      if (ATTN_FAULT(rope_longrope_scaled_in_max, max_convention))
        result.attention_factor = longrope_factor(s);
      if (!max_convention) result.attention_factor = longrope_factor(s);
      break;
    }
  }
  return result;
}

}  // namespace

std::vector<float> make_rope_table(const RopeConfig& rope, std::int64_t rotary_dim,
                                   std::int64_t positions) {
  std::vector<float> table;
  table.reserve(static_cast<std::size_t>(positions * rotary_dim));
  const std::int64_t turning_point = rope.scaling.type == RopeScalingType::kLongrope
                                         ? rope.scaling.original_max_position_embeddings
                                         : 0;
  Spectrum spectrum = spectrum_at(rope, rotary_dim, 0);
  for (std::int64_t p = 0; p < positions; ++p) {
    if (p == turning_point + (ATTN_FAULT(rope_longrope_turns_late, p == turning_point) ? 1 : 0))
      spectrum = spectrum_at(rope, rotary_dim, p);
    for (const double inv : spectrum.inv) {
      const double angle = static_cast<double>(p) * inv;
      table.push_back(static_cast<float>(std::cos(angle) * spectrum.attention_factor));
      table.push_back(static_cast<float>(std::sin(angle) * spectrum.attention_factor));
    }
  }
  return table;
}

void rotate_head(const RopeConfig& rope, std::int64_t rotary_dim, std::int64_t head_dim,
                 const float* table_row, const float* in, float* out) {
  std::copy(in, in + head_dim, out);
  std::int64_t start = rope.rotary_side == RotarySide::kLast ? head_dim - rotary_dim : 0;
  if (ATTN_FAULT(rope_side_ignored, start != 0)) start = 0;
  if (ATTN_FAULT(rope_still_channels_cleared, rotary_dim < head_dim))
    std::fill_n(out, head_dim, 0.0f);
  const std::int64_t pairs = rotary_dim / 2;
  const bool interleaved = rope.interleaved != ATTN_FAULT(rope_interleave_swapped, pairs > 1);
  const std::int64_t step = interleaved ? 2 : 1;   // from one pair to the next
  std::int64_t partner = interleaved ? 1 : pairs;  // from a pair's first to its second
  if (ATTN_FAULT(rope_partner_half_a_head, partner == pairs && start == 0 && rotary_dim < head_dim))
    partner = head_dim / 2;
  for (std::int64_t j = 0; j < pairs; ++j) {
    const float cosine = table_row[2 * j];
    float sine = table_row[2 * j + 1];
    if (ATTN_FAULT(rope_turns_backward)) sine = -sine;
    const std::int64_t first = start + j * step;
    const float a = in[first];
    const float b = in[first + partner];
    out[first] = a * cosine - b * sine;
    out[first + partner] = b * cosine + a * sine;
  }
}

}  // namespace attn::harness::cpu
