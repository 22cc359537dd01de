#include "harness/backends/cpu/activations.h"

#include <algorithm>
#include <cmath>
#include <span>

#include "harness/backends/cpu/fault_switch.h"
#include "harness/backends/cpu/gguf.h"
#include "harness/backends/cpu/small_floats.h"
#include "reference/core/error.h"

namespace attn::harness::cpu {
namespace {

using Block = std::span<float>;

float largest_magnitude(Block x) {
  float largest = 0.0f;
  for (const float v : x) largest = std::max(largest, std::abs(v));
  return largest;
}

double e4m3(double value) { return kE4M3FNValues[encode(kE4M3FN, value)]; }
double e2m1(double value) { return kE2M1Values[encode(kE2M1, value)]; }

/// Values of format(x / scale) * scale; all 0 where the scale is.
template <typename Format>
void round_in_steps_of(double scale, Block x, Format format) {
  for (float& v : x) {
    v = scale == 0.0 ? 0.0f : static_cast<float>(format(static_cast<double>(v) / scale) * scale);
  }
}

/// The scale is a float32 and its numerator capped: 1200 is the limit of the fp8 kernels.
void quantise_dynamic_fp8(Block x) {
  float scale = std::min(largest_magnitude(x), 1200.0f) / 448.0f;
  if (ATTN_FAULT(fp8_scale_not_capped, largest_magnitude(x) > 1200.0f))
    scale = largest_magnitude(x) / 448.0f;
  round_in_steps_of(static_cast<double>(scale), x, e4m3);
}

/// Codes -127 .. 127, ties to even.
void quantise_int8(Block x) {
  const auto largest = static_cast<double>(largest_magnitude(x));
  if (largest == 0.0) return;
  for (float& v : x) {
    double code = std::nearbyint(static_cast<double>(v) * (127.0 / largest));
    if (ATTN_FAULT(int8_truncated)) code = std::trunc(static_cast<double>(v) * (127.0 / largest));
    v = static_cast<float>(code * (largest / 127.0));
  }
}

/// The block's scale is an e4m3 number of units of the tensor's input_scale.
void quantise_nvfp4(Block x, double input_scale) {
  double scale = e4m3(static_cast<double>(largest_magnitude(x)) / 6.0 / input_scale);
  if (ATTN_FAULT(nvfp4_scale_not_rounded))
    scale = static_cast<double>(largest_magnitude(x)) / 6.0 / input_scale;
  round_in_steps_of(scale * input_scale, x, e2m1);
}

/// The smallest power of two (that e8m0 has) whose multiple top * 2^e holds the largest value.
template <typename Format>
void quantise_mx(Block x, double top, Format format) {
  const float largest = largest_magnitude(x);
  if (largest == 0.0f) return;
  int of_largest = 0;
  int of_top = 0;
  const double fraction = std::frexp(static_cast<double>(largest), &of_largest);
  const double top_fraction = std::frexp(top, &of_top);
  int exponent = of_largest - of_top + (fraction > top_fraction ? 1 : 0);
  if (ATTN_FAULT(mx_scale_rounded_down, fraction > top_fraction)) --exponent;
  round_in_steps_of(std::ldexp(1.0, std::clamp(exponent, -127, 127)), x, format);
}

template <typename Quantise>
void for_each_block(Rows& x, std::int64_t width, Quantise quantise) {
  for (std::int64_t i = 0; i < x.count; ++i) {
    for (std::int64_t k = 0; k < x.width; k += width) {
      quantise(Block(x.row(i) + k, static_cast<std::size_t>(std::min(width, x.width - k))));
    }
  }
}

/// q, k and v are one product with one scale.
float static_scale(const Case& c, Matrix matrix) {
  if (matrix == Matrix::kO) return *c.weights.at("o_proj.input_scale").as<float>();
  if (ATTN_FAULT(input_scale_of_own))
    return *c.weights.at(name_of(matrix) + ".input_scale").as<float>();
  return largest_qkv_scale(c, "input_scale");
}

void quantise_fp8(const Case& c, Matrix matrix, Rows& x) {
  const QuantConfig& quant = *c.config.quant;
  if (quant.activation == ActivationQuant::kStatic) {
    const auto scale = static_cast<double>(static_scale(c, matrix));
    for_each_block(x, x.width, [&](Block row) { round_in_steps_of(scale, row, e4m3); });
    return;
  }
  const bool by_row = quant.activation == ActivationQuant::kToken;
  if (ATTN_FAULT(fp8_scale_of_last_row, by_row && x.count > 1)) {
    const auto scale = static_cast<double>(largest_magnitude(
                           Block(x.row(x.count - 1), static_cast<std::size_t>(x.width)))) /
                       448.0;
    return for_each_block(x, x.width, [&](Block row) { round_in_steps_of(scale, row, e4m3); });
  }
  for_each_block(x, by_row ? x.width : quant.block_k, quantise_dynamic_fp8);
}

}  // namespace

bool quantises_activations(const AttentionConfig& config) {
  return config.quant && config.quant->activation != ActivationQuant::kNone;
}

void quantise_activations(const Case& c, Matrix matrix, Rows& x) {
  const QuantEncoding encoding = encoding_of(c.config, matrix);
  switch (encoding) {
    case QuantEncoding::kFloat8E4M3FN:
      return quantise_fp8(c, matrix, x);
    case QuantEncoding::kNvfp4: {
      const auto scale = static_cast<double>(static_scale(c, matrix));
      return for_each_block(x, kNvBlock, [&](Block block) { quantise_nvfp4(block, scale); });
    }
    case QuantEncoding::kMxfp4:
      return for_each_block(x, kMxBlock, [](Block block) { quantise_mx(block, kE2M1.max, e2m1); });
    case QuantEncoding::kMxfp8:
      return for_each_block(x, kMxBlock,
                            [](Block block) { quantise_mx(block, kE4M3FN.max, e4m3); });
    default:
      return for_each_block(x, gguf_format(encoding).columns, quantise_int8);
  }
}

}  // namespace attn::harness::cpu
