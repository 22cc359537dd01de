#pragma once

// Internal to harness/compare (Eigen): the stages of a layer in float64, each element with its
// allowance. One function per stage; docs/numerics.md derives the formulas.

#include <Eigen/Core>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "harness/compare/arithmetic.h"
#include "harness/compare/bound.h"
#include "reference/core/config.h"
#include "reference/core/devices.h"
#include "reference/stages/matrix.h"

namespace attn::harness {

using RowMatrix = reference::Matrix;

/// Exact values of a stage with the error that a correct backend may have in each: at most d, with
/// standard deviation s. An exact input (a tap, or an input of the case) has d and s empty, for 0.
struct Bounded {
  RowMatrix y;
  RowMatrix d;
  RowMatrix s;
  std::vector<Allowance> parts;  ///< of d, row-major; only when asked for

  bool exact() const { return d.size() == 0; }
  static Bounded zeros(Eigen::Index rows, Eigen::Index columns);
};

/// What the errors of x bring to y = x W^T where they depend on each other, [rows, out]; empty
/// where they do not.
struct JointErrors {
  RowMatrix variance;
  RowMatrix linear;  ///< no error is larger

  bool given() const { return variance.size() != 0; }
};

/// How a stage function is evaluated.
struct BoundOptions {
  const Arithmetic& arithmetic;
  bool parts = false;      ///< fill Bounded::parts
  bool deviations = true;  ///< fill Bounded::s; false where nothing is propagated further
};

/// One projection: weights as the layer uses them, decoded and clipped.
struct Projection {
  RowMatrix weight;                        ///< [out, in]
  Eigen::VectorXd bias;                    ///< [out], or empty
  std::optional<double> clip_activations;  ///< of the result
  /// Elements of `weight` that the clip of weights set to +-c, else 0; empty when none. The
  /// backend's c may be rounded to its type, which moves all of these by the same factor 1 +
  /// clip_error.
  RowMatrix clipped;
  double clip_error = 0.0;
  /// Quantised weights only: relative error of a product through its scales; and how far each
  /// weight may lie from `weight` at a tie of merged codes [out, in], or empty.
  double scale_error = 0.0;
  RowMatrix ties;
  /// What K-quant weights subtract [out, in], where int8 codes are summed apart from it, block by
  /// block of columns; or empty.
  RowMatrix minima;
  std::vector<Range> blocks;
  /// Columns of each device's part, where the result is a sum of parts rounded to
  /// Arithmetic::partial.
  std::vector<Range> parts;
};

/// y = clip(x W^T + b). x [rows, in] -> [rows, out], rounded to `result`. The errors of x are taken
/// for independent, unless `joint` is given. `codes`: they are ties between codes and nothing else.
Bounded project(const Bounded& x, const Projection& projection, ElementType result,
                const BoundOptions& options, const JointErrors& joint = {}, bool codes = false);

/// Root-mean-square norm of each head: y = x g / sqrt(mean x^2 + eps). x [rows, heads * D], gamma
/// [D].
Bounded normalize(const Bounded& x, const Eigen::VectorXd& gamma, double eps,
                  const BoundOptions& options);

/// Rotation of each head by the rows of the stored table. x [rows, heads * D], table [rows,
/// rotary_dim] float32 (cos, sin) pairs: row r is that of x's row r's position.
Bounded rotate(const Bounded& x, const RowMatrix& table, const AttentionConfig& config,
               const BoundOptions& options);

/// What a cache of 16 or more bits holds of k or v: rounded to the declared cache type. A tap is
/// rounded as the backend must, so nothing is allowed, unless the backend declares that it converts
/// unrounded values. Caches of codes: code_rows.
Bounded store_in_cache(const Bounded& x, const BoundOptions& options);

}  // namespace attn::harness
