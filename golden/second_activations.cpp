#include "golden/second_activations.h"

#include <algorithm>
#include <cmath>
#include <span>

#include "golden/second_gguf.h"
#include "golden/second_weights.h"

namespace attn::golden {
namespace {

constexpr ElementType kE4M3 = ElementType::kFloat8E4M3FN;
constexpr ElementType kE2M1 = ElementType::kFloat4E2M1FN;

/// Columns of one row that are rounded together. Codes are chosen in float64.
using Block = std::span<Real>;

double largest_magnitude(Block block) {
  Real largest = 0;
  for (const Real v : block) largest = std::max(largest, std::fabs(v));
  return static_cast<double>(largest);
}

/// v -> code(v / scale) * scale; a scale of 0 gives 0.
void round_block(Block block, ElementType code, double scale) {
  for (Real& v : block) {
    v = scale == 0.0 ? 0
                     : static_cast<Real>(round_to(code, static_cast<double>(v) / scale)) * scale;
  }
}

void fp8_dynamic(Block block) {
  const double scale = std::min(largest_magnitude(block), 1200.0) / 448.0;
  round_block(block, kE4M3, static_cast<float>(scale));
}

/// One e4m3 scale for 16 columns, itself in units of the static scale.
void nvfp4(Block block, double input_scale) {
  const double local = round_to(kE4M3, largest_magnitude(block) / (6.0 * input_scale));
  round_block(block, kE2M1, local * input_scale);
}

/// The smallest power of two by which the largest magnitude is at most the code's largest value,
/// within the exponents of e8m0.
void mx(Block block, ElementType code) {
  const double largest = largest_magnitude(block);
  if (largest == 0.0) return;
  int exponent = 0;
  const double fraction = std::frexp(largest / max_finite(code), &exponent);
  if (fraction == 0.5) --exponent;
  round_block(block, code, std::ldexp(1.0, std::clamp(exponent, -127, 127)));
}

void int8(Block block) {
  const double a = largest_magnitude(block);
  for (Real& v : block) {
    // nearbyint: ties to even, in the rounding mode that programs start in.
    v = a == 0.0 ? 0
                 : static_cast<Real>(std::nearbyint(static_cast<double>(v) * (127.0 / a))) *
                       (static_cast<Real>(a) / 127);
  }
}

/// Query heads that each device holds, in order: whole groups, the first devices one more; where
/// devices outnumber the kv heads, those with the same kv head share its group.
std::vector<std::int64_t> query_heads_per_device(const AttentionConfig& config) {
  const std::int64_t kv_heads = config.num_key_value_heads;
  const std::int64_t group = config.num_attention_heads / kv_heads;
  const std::int64_t devices = config.num_devices;
  if (config.variant != Variant::kTensorParallel) return {config.num_attention_heads};
  std::vector<std::int64_t> heads(static_cast<std::size_t>(devices), 0);
  if (devices <= kv_heads) {
    for (std::size_t i = 0; i < heads.size(); ++i) {
      const bool one_more = static_cast<std::int64_t>(i) < kv_heads % devices;
      heads[i] = (kv_heads / devices + (one_more ? 1 : 0)) * group;
    }
    return heads;
  }
  const std::int64_t copies = devices / kv_heads;
  for (std::size_t i = 0; i < heads.size(); ++i) {
    const bool one_more = static_cast<std::int64_t>(i) % copies < group % copies;
    heads[i] = group / copies + (one_more ? 1 : 0);
  }
  return heads;
}

/// One device's columns of one row, in blocks of `width` from the first column on.
template <typename Round>
void for_blocks(Block columns, std::int64_t width, const Round& round) {
  const auto step = static_cast<std::size_t>(width);
  for (std::size_t first = 0; first < columns.size(); first += step) {
    round(columns.subspan(first, std::min(step, columns.size() - first)));
  }
}

void quantise_columns(const Case& c, const std::string& projection, Block columns) {
  const QuantEncoding encoding = second_encoding(c.config, projection);
  const auto whole = static_cast<std::int64_t>(columns.size());
  switch (c.config.quant->activation) {
    case ActivationQuant::kNone:
      return;
    case ActivationQuant::kStatic:
      round_block(columns, kE4M3, static_cast<double>(shared_scale(c, projection, "input_scale")));
      return;
    case ActivationQuant::kToken:
      for_blocks(columns, std::max<std::int64_t>(whole, 1), fp8_dynamic);
      return;
    case ActivationQuant::kInt8:
      for_blocks(columns, second_block_size(encoding).columns, int8);
      return;
    case ActivationQuant::kBlock:
      break;
  }
  if (encoding == QuantEncoding::kFloat8E4M3FN) {
    for_blocks(columns, 128, fp8_dynamic);
  } else if (encoding == QuantEncoding::kNvfp4) {
    const auto scale = static_cast<double>(shared_scale(c, projection, "input_scale"));
    for_blocks(columns, 16, [&](Block block) { nvfp4(block, scale); });
  } else {
    const ElementType code = encoding == QuantEncoding::kMxfp4 ? kE2M1 : kE4M3;
    for_blocks(columns, 32, [&](Block block) { mx(block, code); });
  }
}

}  // namespace

void quantise_input(const Case& c, const std::string& projection, Matrix& x) {
  if (!c.config.quant) return;
  std::vector<std::int64_t> widths{x.cols};
  if (projection == "o_proj") {
    widths = query_heads_per_device(c.config);
    for (std::int64_t& width : widths) width *= c.config.head_dim;
  }
  for (std::int64_t t = 0; t < x.rows; ++t) {
    Real* column = x.data.data() + t * x.cols;
    for (const std::int64_t width : widths) {
      quantise_columns(c, projection, Block(column, static_cast<std::size_t>(width)));
      column += width;
    }
  }
}

}  // namespace attn::golden
