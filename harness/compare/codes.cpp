#include "harness/compare/codes.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "reference/core/quant_internal.h"
#include "reference/formats/gguf.h"
#include "reference/stages/projection_input.h"

namespace attn::harness {
namespace {

using Eigen::Index;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kInt8Codes = 127.0;
/// Largest row maximum that dynamic fp8 scales follow; larger values saturate.
constexpr double kFp8Cap = 1200.0;
/// Scales that differ by less are one scale whose computation was rounded differently.
constexpr double kOneScale = 0x1p-18;

bool is_power_of_two(double x) {
  int exponent = 0;
  return std::frexp(x, &exponent) == 0.5;
}

CodeGrid activation_grid(QuantEncoding encoding) {
  switch (encoding) {
    case QuantEncoding::kFloat8E4M3FN:
    case QuantEncoding::kMxfp8:
      return CodeGrid(ElementType::kFloat8E4M3FN);
    case QuantEncoding::kNvfp4:
    case QuantEncoding::kMxfp4:
      return CodeGrid(ElementType::kFloat4E2M1FN);
    default:
      return CodeGrid::int8();
  }
}

/// How a projection's input becomes codes.
struct InputCodes {
  CodeGrid grid;
  /// The scale is given, or itself a code: no arithmetic changes it but by a step.
  bool exact_scale;
  /// Magnitude above which a value saturates although its scale follows the data.
  double cap;
};

InputCodes input_codes(const AttentionConfig& config, reference::Projection p) {
  const QuantEncoding encoding = reference::encoding_of(config, p);
  const bool fp8 = encoding == QuantEncoding::kFloat8E4M3FN;
  const bool given = config.quant->activation == ActivationQuant::kStatic;
  const bool coded_scale = encoding == QuantEncoding::kNvfp4 || encoding == QuantEncoding::kMxfp4 ||
                           encoding == QuantEncoding::kMxfp8;
  return {activation_grid(encoding), given || coded_scale, given ? 0.0 : fp8 ? kFp8Cap : kInfinity};
}

/// Scale of every element of |x| moved by `reach`, up or down.
RowMatrix moved_scale(const Case& c, reference::Projection p, const RowMatrix& magnitude,
                      const RowMatrix& reach, double direction) {
  const RowMatrix moved = (magnitude + direction * reach).cwiseMax(0.0);
  return reference::projection_input(c, p, moved, reference::Rounding(reference::Mode::kExact))
      .scale;
}

/// One element of an exact input: 0 unless its quotient, or its block's scale, lies at a tie.
double tie_error(const InputCodes& codes, double x, double reach, ScaleRange scale, double z) {
  if (scale.high - scale.low > kOneScale * scale.value) {
    return std::max({codes.grid.error_at(x, reach, scale.low, z),
                     codes.grid.error_at(x, reach, scale.value, z),
                     codes.grid.error_at(x, reach, scale.high, z)});
  }
  if (codes.exact_scale && is_power_of_two(scale.value)) return 0.0;  // x / scale is exact
  return codes.grid.error_at(x, reach, scale.value, z);
}

/// The new rows' scale of one head: given, or made from its largest magnitude.
struct HeadScale {
  ScaleRange range;
  bool exact = false;      ///< dividing by it rounds nothing
  double deviation = 0.0;  ///< its relative standard deviation
};

/// The head's values are x[0 .. width - 1], off by d with deviation s (null where exact).
HeadScale head_scale(const Case& c, const Tensor& scales, const double* x, const double* d,
                     const double* s, Index width, Index head, ElementType type) {
  switch (c.config.kv_cache.scale_granularity) {
    case ScaleGranularity::kNone:
      return {{1.0, 1.0, 1.0}, true, 0.0};
    case ScaleGranularity::kTensor:
    case ScaleGranularity::kHead: {
      const double given = scales.value(scales.size() == 1 ? 0 : head);
      return {{given, given, given}, is_power_of_two(given), 0.0};
    }
    case ScaleGranularity::kTokenHead:
      break;
  }
  double low = 0.0, value = 0.0, high = 0.0, deviation = 0.0;
  for (Index i = 0; i < width; ++i) {
    const double magnitude = std::abs(x[i]), reach = d == nullptr ? 0.0 : d[i];
    low = std::max(low, magnitude - reach);
    if (magnitude > value) {
      value = magnitude;
      deviation = s == nullptr ? 0.0 : s[i] / magnitude;
    }
    high = std::max(high, magnitude + reach);
  }
  const auto scale = [type](double amax) {
    return round_to(ElementType::kFloat32, amax / max_finite(type));
  };
  // A row of zeros has scale 1; one that may be anything has any scale up to its largest.
  if (high == 0.0) return {{1.0, 1.0, 1.0}, true, 0.0};
  return {{scale(low), value > 0.0 ? scale(value) : 1.0, scale(high)}, false, deviation};
}

}  // namespace

double scaling_roundoff(const Arithmetic& arithmetic) { return unit_roundoff(arithmetic.scaling); }

double CodeGrid::nearest(double t) const {
  if (type_) return round_to(*type_, t);
  return std::clamp(std::nearbyint(t), -kInt8Codes, kInt8Codes);
}

double CodeGrid::half_gap(double magnitude, double scale) const {
  if (!(scale > 0.0)) return magnitude;
  if (!type_) return 0.5 * scale;
  return std::max(unit_roundoff(*type_) * magnitude, min_subnormal(*type_) / 2.0 * scale);
}

double CodeGrid::neighbour(double code, int direction) const {
  if (!type_) return std::clamp(code + direction, -kInt8Codes, kInt8Codes);
  // The bits of positive codes count upwards.
  const auto index = static_cast<std::int64_t>(encode(*type_, std::abs(code)));
  const std::int64_t next = (code < 0.0 ? -index : index) + direction;
  const auto largest = static_cast<std::int64_t>(encode(*type_, max_finite(*type_)));
  const std::int64_t magnitude = std::min(std::abs(next), largest);
  return std::copysign(decode(*type_, static_cast<std::uint64_t>(magnitude)),
                       static_cast<double>(next));
}

double CodeGrid::error_at(double x, double reach, double scale, double z) const {
  if (!(scale > 0.0)) return std::abs(z);  // a block of zeros
  const double below = nearest((x - reach) / scale) * scale;
  const double above = nearest((x + reach) / scale) * scale;
  return std::max(std::abs(below - z), std::abs(above - z));
}

double CodeGrid::reachable_error(double x, double reach, const ScaleRange& scale, double z) const {
  if (scale.low == scale.high) return error_at(x, reach, scale.value, z);
  const double top = std::abs(x) + reach, bottom = std::abs(x) - reach;
  if (!(top > 0.0)) return 0.0;
  const double above = nearest(top / scale.low) * scale.high;
  const double below = bottom > 0.0 ? nearest(bottom / scale.high) * scale.low
                                    : nearest(bottom / scale.low) * scale.high;
  return std::max(above - std::abs(z), std::abs(z) - below);
}

double CodeGrid::flip_probability(double x, double sigma, double scale) const {
  if (!(scale > 0.0) || !(sigma > 0.0)) return 0.0;
  const double t = x / scale, code = nearest(t), width = sigma / scale;
  double probability = 0.0;
  for (const int direction : {-1, 1}) {
    const double other = neighbour(code, direction);
    if (other == code) continue;                                 // saturated
    const double distance = std::abs((code + other) / 2.0 - t);  // to the tie
    probability += 0.5 * std::erfc(distance / width / std::sqrt(2.0));
  }
  return std::min(1.0, probability);
}

QuantisedRows quantise_rows(const Case& c, reference::Projection p, const Bounded& x,
                            const Arithmetic& arithmetic) {
  if (!reference::quantises_input(c.config)) return {x, {}, {}};
  const InputCodes codes = input_codes(c.config, p);
  const reference::ProjectionInput input =
      reference::projection_input(c, p, x.y, reference::Rounding(reference::Mode::kExact));
  const RowMatrix magnitude = x.y.cwiseAbs();
  RowMatrix reach = kQuotientRoundings * scaling_roundoff(arithmetic) * magnitude;
  if (!x.exact()) reach += x.d;
  const RowMatrix low = moved_scale(c, p, magnitude, reach, -1.0);
  const RowMatrix high = moved_scale(c, p, magnitude, reach, 1.0);

  QuantisedRows out{Bounded::zeros(x.y.rows(), x.y.cols()), {}, {}};
  out.x.y = input.value();
  if (!x.exact()) out.flips = out.apart = RowMatrix::Zero(x.y.rows(), x.y.cols());
  for (Index i = 0; i < x.y.size(); ++i) {
    const double value = x.y.data()[i], r = reach.data()[i], z = out.x.y.data()[i];
    const ScaleRange scale{low.data()[i], input.scale.data()[i], high.data()[i]};
    double& d = out.x.d.data()[i];
    if (x.exact()) {
      out.x.s.data()[i] = d = tie_error(codes, value, r, scale, z);
      continue;
    }
    d = codes.grid.reachable_error(value, r, scale, z);
    // Both values lie within half a gap of what they round, unless they saturate.
    const double top = std::abs(value) + r;
    const double half_gap = codes.grid.half_gap(top, scale.high);
    double own = d, apart = d + x.d.data()[i];
    if (top <= std::max(codes.cap, codes.grid.nearest(kInfinity) * scale.low)) {
      d = std::min(d, std::abs(z - value) + r + half_gap);
      own = std::min(d, 2.0 * half_gap);
      apart = std::min(apart, 2.0 * half_gap);
    }
    out.flips.data()[i] = own;
    out.apart.data()[i] = apart;
    out.x.s.data()[i] = std::min(d, x.s.data()[i] + own);
  }
  if (x.exact() && (out.x.d.array() == 0.0).all()) out.x.d = out.x.s = RowMatrix();
  return out;
}

CodedRows code_rows(const Case& c, Stage stage, const Bounded& x, const Arithmetic& arithmetic) {
  const AttentionConfig& config = c.config;
  const bool keys = stage == Stage::kCacheK;
  const ElementType type = config.kv_cache.dtype;
  const CodeGrid grid(type);
  const Index width = keys ? config.head_dim : config.head_dim_v;
  const double u = scaling_roundoff(arithmetic);
  // Converted from unrounded values: a tap lies one rounding of `store` beside them.
  const double fused = arithmetic.fused_cache && x.exact() ? unit_roundoff(arithmetic.store) : 0.0;
  CodedRows out{Bounded::zeros(x.y.rows(), x.y.cols()), x.y,
                RowMatrix::Zero(x.y.rows(), x.y.cols())};
  for (Index r = 0; r < x.y.rows(); ++r) {
    for (Index first = 0; first < x.y.cols(); first += width) {
      const HeadScale scale =
          head_scale(c, keys ? c.cache.k_scale : c.cache.v_scale, &x.y(r, first),
                     x.exact() ? nullptr : &x.d(r, first), x.exact() ? nullptr : &x.s(r, first),
                     width, first / width, type);
      const bool given = scale.range.low == scale.range.high;
      const double quotient = scale.exact ? 0.0 : kQuotientRoundings * u;
      for (Index i = first; i < first + width; ++i) {
        const double value = x.y(r, i), d_in = x.exact() ? 0.0 : x.d(r, i);
        const double s_in = x.exact() ? 0.0 : x.s(r, i);
        const double reach = d_in + (quotient + fused) * std::abs(value);
        const double z = grid.nearest(value / scale.range.value) * scale.range.value;
        double codes = grid.error_at(value, reach, scale.range.value, z);
        if (!given && !x.exact()) {  // nothing saturates under a scale made from the row
          const double half_gap = grid.half_gap(std::abs(value) + reach, scale.range.high);
          codes = std::min(grid.reachable_error(value, reach, scale.range, z),
                           std::abs(z - value) + reach + half_gap);
        }
        out.x.y(r, i) = z;
        out.x.d(r, i) = codes + cache_scale_error(config, arithmetic) * (std::abs(z) + codes);
        out.x.s(r, i) = out.x.d(r, i);  // two points, not a uniform error
        out.flips(r, i) = grid.flip_probability(
            value,
            std::hypot(s_in, scale.deviation * value, (quotient + fused) * value / std::sqrt(3.0)),
            scale.range.value);
      }
    }
  }
  return out;
}

RowMatrix merged_weight_ties(const Case& c, reference::Projection p, const Arithmetic& arithmetic) {
  const std::optional<QuantConfig>& quant = c.config.quant;
  const bool merged_codes =
      quant && quant->activation == ActivationQuant::kStatic && p != reference::Projection::kO;
  if (!merged_codes || arithmetic.native_weights) return {};
  const double merged = reference::shared_scalar(c, p, "weight_scale");
  const double own = reference::scalar_weight(c, p, "weight_scale");
  if (own == merged) return {};
  const Tensor& stored = c.weights.at(reference::name_of(p) + ".weight");
  const double clip = c.config.weight_clip().value_or(kInfinity);
  const CodeGrid grid(ElementType::kFloat8E4M3FN);
  RowMatrix ties = reference::decode_matrix(stored, stored.dim(0), stored.dim(1));
  for (Index i = 0; i < ties.size(); ++i) {
    const double value = std::clamp(ties.data()[i], -clip, clip) * own;
    const double reach = kQuotientRoundings * scaling_roundoff(arithmetic) * std::abs(value);
    const double z = grid.nearest(value / merged) * merged;
    ties.data()[i] = grid.error_at(value, reach, merged, z);
  }
  if ((ties.array() == 0.0).all()) return {};
  return ties;
}

RowMatrix weight_minima(const Case& c, reference::Projection p) {
  const QuantEncoding encoding = reference::encoding_of(c.config, p);
  if (encoding != QuantEncoding::kQ4_K && encoding != QuantEncoding::kQ5_K) return {};
  const Tensor& stored = reference::projection_tensor(c, p, "weight");
  const GgufBlock block = gguf_block(encoding);
  RowMatrix minima(stored.dim(0), stored.dim(1) / block.bytes * block.elements);
  const std::size_t bytes = static_cast<std::size_t>(block.bytes);
  for (Index at = 0; at < minima.size(); at += block.elements) {
    const std::size_t first = static_cast<std::size_t>(at / block.elements) * bytes;
    const reference::GgufFields fields =
        reference::unpack_gguf(encoding, stored.bytes().subspan(first, bytes));
    for (Index i = 0; i < block.elements; ++i) {
      minima.data()[at + i] =
          static_cast<double>(fields.dmin) * fields.min[static_cast<std::size_t>(i / fields.group)];
    }
  }
  return minima;
}

bool has_coded_cache(const AttentionConfig& config) {
  return element_size(config.kv_cache.dtype) == 1;
}

double cache_scale_error(const AttentionConfig& config, const Arithmetic& arithmetic) {
  switch (config.kv_cache.scale_granularity) {
    case ScaleGranularity::kNone:
      return 0.0;
    case ScaleGranularity::kTokenHead:  // its scale may be a float32 neighbour
      return 2.0 * scaling_roundoff(arithmetic) + 0x1p-23;
    default:
      return 2.0 * scaling_roundoff(arithmetic);
  }
}

}  // namespace attn::harness
