#pragma once

// Internal to harness/compare (Eigen): values that are rounded to 8- or 4-bit codes, where either
// neighbour of a tie may be right. docs/numerics.md derives the rules ("Codes").

#include <optional>

#include "harness/compare/stage_bounds.h"
#include "reference/core/case.h"
#include "reference/core/trace.h"
#include "reference/stages/weights.h"

namespace attn::harness {

/// Elementary roundings that a quotient x / scale may take, reciprocals included: nvfp4 by
/// reciprocals takes 5.
inline constexpr double kQuotientRoundings = 6.0;
/// The same of scales that multiply: weight, activation and global scale, and the product.
inline constexpr double kScaleRoundings = 4.0;

/// Elementary roundoff of the arithmetic on scales and codes.
double scaling_roundoff(const Arithmetic& arithmetic);

/// A positive scale and how far a backend's own may lie from it.
struct ScaleRange {
  double low, value, high;
};

/// The codes of one format: value = code * scale, code = nearest(x / scale).
class CodeGrid {
 public:
  /// An 8- or 4-bit float type.
  explicit CodeGrid(ElementType type) : type_(type) {}
  /// Whole numbers -127 .. 127.
  static CodeGrid int8() { return CodeGrid(); }

  /// Nearest code, ties to even, saturating.
  double nearest(double t) const;
  /// At most how far values up to `magnitude` lie from their code times a scale of at most `scale`,
  /// where none saturates.
  double half_gap(double magnitude, double scale) const;
  /// How far from z = code * scale.value, the exact result for x, the result may end for a value in
  /// [x - reach, x + reach] under a scale in the range.
  double reachable_error(double x, double reach, const ScaleRange& scale, double z) const;
  /// The same under one scale only.
  double error_at(double x, double reach, double scale, double z) const;
  /// The code beside `code`, `direction` 1 above or -1 below; `code` itself at the end of the grid.
  double neighbour(double code, int direction) const;
  /// Probability that a value with standard deviation sigma > 0 around x gets another code than x.
  double flip_probability(double x, double sigma, double scale) const;

 private:
  CodeGrid() = default;
  std::optional<ElementType> type_;
};

/// The input of a projection in the codes of quant.activation.
struct QuantisedRows {
  Bounded x;  ///< code * scale; exact where x was and no element lies at a tie
  /// [rows, in] deviation of the codes' own error beyond that of x; empty where x was exact.
  RowMatrix flips;
  /// [rows, in] at most how far the error of a code times scale lies from that of x; empty
  /// likewise.
  RowMatrix apart;
};
QuantisedRows quantise_rows(const Case& c, reference::Projection p, const Bounded& x,
                            const Arithmetic& arithmetic);

/// Rows of an fp8 cache.
struct CodedRows {
  Bounded x;         ///< code * scale
  RowMatrix values;  ///< what is rounded to these; empty where nothing is
  RowMatrix flips;   ///< probability that a correct backend stores another code
};
/// New rows k (stage kCacheK) or v of an fp8 cache, from x [rows, Hkv * width].
CodedRows code_rows(const Case& c, Stage stage, const Bounded& x, const Arithmetic& arithmetic);

/// Merged static weights (fp8, one scale for q, k and v): how far each element of projection `p`
/// may lie from its exact one because its code is at a tie, [out, in]. Empty when none is.
RowMatrix merged_weight_ties(const Case& c, reference::Projection p, const Arithmetic& arithmetic);

/// What Q4_K and Q5_K weights subtract, dmin * min, [out, in]. Empty for other encodings.
RowMatrix weight_minima(const Case& c, reference::Projection p);

/// True for an fp8 cache.
bool has_coded_cache(const AttentionConfig& config);

/// Relative error of a cached value read as code * scale in the declared arithmetic.
double cache_scale_error(const AttentionConfig& config, const Arithmetic& arithmetic);

}  // namespace attn::harness
