#include <algorithm>
#include <array>
#include <cmath>

#include "harness/generate/encode.h"

namespace attn::harness {
namespace {

/// Largest magnitude of the projection of the first rows of x, as far as it can be told cheaply.
double projected_amax(const Draft& d, Projection projection) {
  constexpr std::int64_t kRows = 4;
  const ProjectionRows rows = rows_of(d.config(), projection);
  const Tensor& weight = d.c.weights.at(rows.weight);
  const std::int64_t in = weight.dim(1);
  std::vector<double> x(static_cast<std::size_t>(in));
  std::vector<double> w(static_cast<std::size_t>(in));
  double largest = 0;
  for (std::int64_t r = rows.first; r < rows.first + rows.count; ++r) {
    weight.values(r * in, w);
    for (std::int64_t t = 0; t < std::min(kRows, d.c.tokens()); ++t) {
      d.c.x.values(t * in, x);
      double sum = 0;
      for (std::size_t k = 0; k < x.size(); ++k) sum += x[k] * w[k];
      largest = std::max(largest, std::abs(sum));
    }
  }
  return largest;
}

double new_amax(const Draft& d, Projection projection) {
  if (d.config().starts_at_attention() || d.c.tokens() == 0) return 0;
  if (projection == Projection::kK && d.config().use_qk_norm) {
    constexpr double kLargestNormed = 3;  // of values with a root mean square of 1
    return kLargestNormed * largest_magnitude(d.c.weights.at("k_norm.weight").values());
  }
  const double largest = projected_amax(d, projection);
  return std::min(largest, d.config().clip_activations.value_or(largest));
}

void encode_projection(const EncodeJob& job, LayerWeights& weights) {
  weights.erase(job.projection + ".weight");
  switch (job.encoding) {
    case QuantEncoding::kNone:
      return;
    case QuantEncoding::kFloat8E4M3FN:
      return encode_fp8(job, weights);
    case QuantEncoding::kNvfp4:
      return encode_nvfp4(job, weights);
    case QuantEncoding::kMxfp4:
    case QuantEncoding::kMxfp8:
      return encode_mx(job, weights);
    case QuantEncoding::kGptq:
      return encode_gptq(job, weights);
    default:
      return encode_gguf(job, weights);
  }
}

void quantise_weights(Draft& d, double v_amax) {
  const QuantConfig& quant = *d.config().quant;
  const double x_amax = largest_magnitude(d.c.x.values());
  // Attention averages values: its output stays below the largest.
  const std::array<double, 4> input_amax = {x_amax, x_amax, x_amax, v_amax};
  const std::array<QuantEncoding, 4> encodings = {quant.q_proj, quant.k_proj, quant.v_proj,
                                                  quant.o_proj};
  constexpr std::array<const char*, 4> kNames = {"q_proj", "k_proj", "v_proj", "o_proj"};
  ScaleKinds scales;
  for (std::size_t i = 0; i < kNames.size(); ++i) {
    const Tensor& dense = d.c.weights.at(std::string(kNames[i]) + ".weight");
    const DenseMatrix matrix{dense.dim(0), dense.dim(1), dense.values()};
    const double amax = input_amax[i] > 0 ? input_amax[i] : kNoMagnitude;
    encode_projection({matrix, quant, encodings[i], kNames[i], d.seed, amax, scales}, d.c.weights);
  }
}

/// About the largest magnitude of k (or v) in the cache after the call: of the drawn cache, and of
/// what the first new rows add.
double cache_amax(const Draft& d, Projection projection) {
  const Tensor& cached = projection == Projection::kK ? d.k : d.v;
  return std::max(largest_magnitude(cached.values()), new_amax(d, projection));
}

/// Scales of the dense cache [tokens, heads, width], nothing for an unscaled one. The largest
/// magnitude gets a code between max / 1.25 and beyond saturation; per token and head it is the
/// row's own.
Tensor draw_cache_scales(const Draft& d, const Tensor& dense, double amax, const std::string& name,
                         DistinctScales& distinct) {
  const KvCacheConfig& config = d.config().kv_cache;
  const RandomStream stream(d.seed, name);
  const auto wanted = [&](double magnitude, std::int64_t i) {
    return (magnitude > 0 ? magnitude : kNoMagnitude) / max_finite(config.dtype) *
           (0.8 + 0.45 * stream.uniform(static_cast<std::uint64_t>(i)));
  };
  if (config.scale_granularity == ScaleGranularity::kNone) return {};
  if (config.scale_granularity == ScaleGranularity::kTensor) {
    return Tensor::scalar(ElementType::kFloat32, distinct.next(wanted(amax, 0)));
  }
  const bool per_head = config.scale_granularity == ScaleGranularity::kHead;
  const Shape shape = per_head ? Shape{dense.dim(1)} : Shape{dense.dim(0), dense.dim(1)};
  Tensor scales(ElementType::kFloat32, shape);
  std::vector<double> row(static_cast<std::size_t>(dense.dim(2)));
  for (std::int64_t i = 0; i < scales.size(); ++i) {
    if (!per_head) dense.values(i * dense.dim(2), row);
    scales.set_value(i, wanted(per_head ? amax : largest_magnitude(row), i));
  }
  return scales;
}

/// The dense cache becomes codes of its values, divided by their scale where there is one.
void encode_cache(const AttentionConfig& config, const Tensor& scales, Tensor& dense) {
  Tensor codes(config.kv_cache.dtype, dense.shape());
  const std::int64_t heads = dense.dim(1);
  const std::int64_t width = dense.dim(2);
  std::vector<double> row(static_cast<std::size_t>(width));
  for (std::int64_t r = 0; r < dense.dim(0) * heads; ++r) {
    dense.values(r * width, row);
    if (!scales.empty()) {
      const bool per_head = config.kv_cache.scale_granularity == ScaleGranularity::kHead;
      const std::int64_t which = per_head ? r % heads : std::min(r, scales.size() - 1);
      for (double& value : row) value /= scales.value(which);
    }
    encode_all(codes.type(), row, codes.data() + r * width);
  }
  dense = std::move(codes);
}

}  // namespace

double DistinctScales::next(double wanted) {
  constexpr double kNear = 1.2;
  const auto near = [](double a, double b) { return a < kNear * b && b < kNear * a; };
  auto scale = static_cast<float>(wanted);
  while (near(scale, 1.0) ||
         std::ranges::any_of(taken_, [&](double other) { return near(scale, other); })) {
    scale *= 1.5F;
  }
  taken_.push_back(scale);
  return scale;
}

double largest_magnitude(std::span<const double> values) {
  double largest = 0;
  for (const double value : values) largest = std::max(largest, std::abs(value));
  return largest;
}

bool is_fp8(ElementType type) {
  return type == ElementType::kFloat8E4M3FN || type == ElementType::kFloat8E4M3FNUZ;
}

CacheScales quantise(Draft& d) {
  const AttentionConfig& config = d.config();
  const bool fp8_cache = is_fp8(config.kv_cache.dtype);
  if (!config.quant && !fp8_cache) return {};
  // Both from the dense weights and the dense cache, before either is encoded.
  const double k_amax = cache_amax(d, Projection::kK);
  const double v_amax = cache_amax(d, Projection::kV);
  if (config.quant) quantise_weights(d, v_amax);
  if (!fp8_cache) return {};
  CacheScales scales;
  DistinctScales distinct;
  scales.k = draw_cache_scales(d, d.k, k_amax, "cache/k_scale", distinct);
  scales.v = draw_cache_scales(d, d.v, v_amax, "cache/v_scale", distinct);
  encode_cache(config, scales.k, d.k);
  encode_cache(config, scales.v, d.v);
  return scales;
}

}  // namespace attn::harness
