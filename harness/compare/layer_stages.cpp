#include "harness/compare/layer_stages.h"

#include <cmath>

#include "harness/compare/attention_rows.h"
#include "reference/stages/rope.h"

namespace attn::harness {
namespace {

constexpr reference::Mode kExact = reference::Mode::kExact;

}  // namespace

Projection make_projection(const Case& c, reference::Projection which,
                           const Arithmetic& arithmetic) {
  const AttentionConfig& config = c.config;
  Projection p;
  p.weight = reference::projection_weight(c, which, reference::Rounding(kExact));
  if (which == reference::Projection::kO) return p;
  if (config.has_bias) p.bias = reference::projection_bias(c, which).row(0).transpose();
  p.clip_activations = config.clip_activations;
  if (const auto bound = config.weight_clip()) {
    const double clip = *bound;
    p.clip_error = std::abs(round_to(arithmetic.store, clip) / clip - 1.0);
    if (p.clip_error > 0.0) {
      p.clipped = p.weight.unaryExpr([clip](double w) { return std::abs(w) >= clip ? w : 0.0; });
    }
  }
  return p;
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
