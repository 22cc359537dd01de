#include "harness/compare/layer_stages.h"

#include <cmath>

#include "harness/compare/attention_rows.h"
#include "reference/stages/projection_input.h"
#include "reference/stages/rope.h"

namespace attn::harness {
namespace {

constexpr reference::Mode kExact = reference::Mode::kExact;

}  // namespace

Projection make_projection(const Case& c, reference::Projection which,
                           const Arithmetic& arithmetic) {
  const AttentionConfig& config = c.config;
  Projection p;
  const bool native = config.quant && arithmetic.native_weights;
  p.weight = reference::projection_weight(
      c, which, reference::Rounding(native ? reference::Mode::kFaithful : kExact));
  if (config.quant) {
    p.scale_error = kScaleRoundings * scaling_roundoff(arithmetic);
    p.ties = merged_weight_ties(c, which, arithmetic);
    if (config.quant->activation == ActivationQuant::kInt8) {
      p.minima = weight_minima(c, which);
      if (p.minima.size() != 0) {
        p.blocks = reference::activation_blocks(config, which, p.weight.cols());
      }
    }
  }
  if (which == reference::Projection::kO) {
    if (config.variant == Variant::kTensorParallel && config.num_devices > 1) {
      for (const DeviceHeads& device : device_heads(config)) {
        p.parts.push_back(
            {device.q_heads.first * config.head_dim_v, device.q_heads.count * config.head_dim_v});
      }
    }
    return p;
  }
  if (config.has_bias) p.bias = reference::projection_bias(c, which).row(0).transpose();
  p.clip_activations = config.clip_activations;
  if (const auto bound = config.weight_clip()) {
    const double clip = *bound;
    // Codes are clipped as they are, or as native weights are.
    p.clip_error = config.quant ? 0.0 : std::abs(round_to(arithmetic.store, clip) / clip - 1.0);
    if (p.clip_error > 0.0) {
      p.clipped = p.weight.unaryExpr([clip](double w) { return std::abs(w) >= clip ? w : 0.0; });
    }
  }
  return p;
}

Bounded project_rows(const Case& c, reference::Projection which, const Projection& projection,
                     const Bounded& x, const BoundOptions& options, const JointErrors& joint) {
  const Arithmetic& arithmetic = options.arithmetic;
  const ElementType result = which == reference::Projection::kO ? arithmetic.out : arithmetic.store;
  const QuantisedRows input = quantise_rows(c, which, x, arithmetic);
  if (!joint.given() || input.flips.size() == 0) {
    return project(input.x, projection, result, options, joint, x.exact());
  }
  // The codes' own errors are independent of each other, not of those of x: deviations add up.
  const RowMatrix own = input.flips.cwiseAbs2() * projection.weight.cwiseAbs2().transpose();
  const JointErrors both{
      (joint.variance.cwiseSqrt() + own.cwiseSqrt()).cwiseAbs2(),
      joint.linear + input.apart * projection.weight.cwiseAbs().transpose(),
  };
  return project(input.x, projection, result, options, both, false);
}

CodedRows cache_rows(const Case& c, Stage stage, const Bounded& x, const BoundOptions& options) {
  if (has_coded_cache(c.config)) return code_rows(c, stage, x, options.arithmetic);
  return {store_in_cache(x, options), {}, {}};
}

Bounded normalize_rows(const Case& c, Stage stage, const Bounded& x, const BoundOptions& options) {
  const std::string name = std::string(name_of(stage)) + ".weight";
  const std::vector<double> gamma = c.weights.at(name).values();
  return normalize(x, Eigen::Map<const Eigen::VectorXd>(gamma.data(), std::ssize(gamma)),
                   c.config.rms_norm_eps, options);
}

Bounded rotate_rows(const Case& c, const Bounded& x, std::span<const std::int64_t> rows,
                    const BoundOptions& options) {
  const std::vector<std::int64_t> positions = reference::row_positions(c);
  std::vector<std::int64_t> wanted;
  for (const std::int64_t row : rows) wanted.push_back(positions[static_cast<std::size_t>(row)]);
  return rotate(x, decode_tap(c.freqs_cis, wanted).y, c.config, options);
}

Bounded input_rows(const Case& c, std::span<const std::int64_t> rows) {
  return decode_tap(c.x, rows);
}

}  // namespace attn::harness
