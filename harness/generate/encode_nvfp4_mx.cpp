#include <algorithm>
#include <cmath>

#include "harness/generate/encode.h"

namespace attn::harness {
namespace {

constexpr std::int64_t kNvfp4Block = 16;  // columns that share a scale
constexpr std::int64_t kMxBlock = 32;

/// Two e2m1 codes a byte, the even column in the low nibble.
void pack_nibbles(std::span<const double> values, std::byte* bytes) {
  for (std::size_t k = 0; k < values.size(); k += 2) {
    const std::uint64_t even = encode(ElementType::kFloat4E2M1FN, values[k]);
    const std::uint64_t odd = encode(ElementType::kFloat4E2M1FN, values[k + 1]);
    bytes[k / 2] = static_cast<std::byte>(even | odd << 4U);
  }
}

/// Smallest e with amax <= top * 2^e, which is ceil(log2(amax / top)); 0 for no magnitude at all.
int block_exponent(double amax, double top) {
  if (!(amax > 0)) return 0;
  int exponent = 0;
  const double fraction = std::frexp(amax / top, &exponent);  // in [0.5, 1)
  return fraction == 0.5 ? exponent - 1 : exponent;
}

}  // namespace

/// w = e2m1(code) * weight_scale * weight_scale_2. The second scale leaves the largest weight a
/// block scale between 448 / 1.5 and 448.
void encode_nvfp4(const EncodeJob& job, LayerWeights& weights) {
  const DenseMatrix& w = job.weight;
  const double top = max_finite(ElementType::kFloat4E2M1FN);
  const double top_scale = max_finite(ElementType::kFloat8E4M3FN);
  const double amax = std::max(largest_magnitude(w.values), kNoMagnitude);
  const double spread = 1.0 + 0.5 * job.stream("weight_scale_2").uniform(0);
  const double second = job.scales.weight_2.next(amax / (top * top_scale) * spread);

  const std::int64_t blocks = w.columns / kNvfp4Block;
  Tensor codes(ElementType::kUInt8, {w.rows, w.columns / 2});
  Tensor scale(ElementType::kFloat8E4M3FN, {w.rows, blocks});
  std::vector<double> quotients(kNvfp4Block);
  for (std::int64_t i = 0; i < w.rows * blocks; ++i) {
    const auto first = static_cast<std::size_t>(i * kNvfp4Block);
    const std::span<const double> block = std::span(w.values).subspan(first, kNvfp4Block);
    scale.set_value(i, largest_magnitude(block) / top / second);
    const double step = scale.value(i) * second;
    std::ranges::transform(block, quotients.begin(),
                           [step](double value) { return step > 0 ? value / step : 0.0; });
    pack_nibbles(quotients, codes.data() + first / 2);
  }
  weights[job.projection + ".weight"] = std::move(codes);
  weights[job.projection + ".weight_scale"] = std::move(scale);
  weights[job.projection + ".weight_scale_2"] = Tensor::scalar(ElementType::kFloat32, second);
  const double factor = 1.25 + 0.5 * job.stream("input_scale").uniform(0);
  weights[job.projection + ".input_scale"] = Tensor::scalar(
      ElementType::kFloat32, job.scales.input.next(job.input_amax / (top * top_scale) * factor));
}

/// w = code * 2^(e - 127), e2m1 or e4m3 codes. One block in eight has half the scale it needs, so
/// that its largest codes saturate.
void encode_mx(const EncodeJob& job, LayerWeights& weights) {
  const DenseMatrix& w = job.weight;
  const bool fp4 = job.encoding == QuantEncoding::kMxfp4;
  const ElementType code_type = fp4 ? ElementType::kFloat4E2M1FN : ElementType::kFloat8E4M3FN;
  const std::int64_t blocks = w.columns / kMxBlock;
  Tensor codes = fp4 ? Tensor(ElementType::kUInt8, {w.rows, w.columns / 2})
                     : Tensor(ElementType::kFloat8E4M3FN, {w.rows, w.columns});
  Tensor scale(ElementType::kFloat8E8M0FNU, {w.rows, blocks});
  const RandomStream stream = job.stream("weight_scale");
  std::vector<double> quotients(kMxBlock);
  for (std::int64_t i = 0; i < w.rows * blocks; ++i) {
    const auto first = static_cast<std::size_t>(i * kMxBlock);
    const std::span<const double> block = std::span(w.values).subspan(first, kMxBlock);
    const int saturated = stream.below(static_cast<std::uint64_t>(i), 8) == 0 ? 1 : 0;
    const int exponent =
        block_exponent(largest_magnitude(block), max_finite(code_type)) - saturated;
    const double step = std::ldexp(1.0, std::clamp(exponent, -127, 127));
    scale.set_value(i, step);
    std::ranges::transform(block, quotients.begin(), [step](double value) { return value / step; });
    if (fp4) {
      pack_nibbles(quotients, codes.data() + first / 2);
    } else {
      encode_all(code_type, quotients, codes.data() + first);
    }
  }
  weights[job.projection + ".weight"] = std::move(codes);
  weights[job.projection + ".weight_scale"] = std::move(scale);
}

}  // namespace attn::harness
