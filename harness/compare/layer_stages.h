#pragma once

// Internal to harness/compare (Eigen): the stages of stage_bounds.h with the weights of a case.

#include <cstdint>
#include <span>

#include "harness/compare/codes.h"
#include "harness/compare/stage_bounds.h"
#include "reference/core/case.h"
#include "reference/core/trace.h"
#include "reference/stages/weights.h"

namespace attn::harness {

/// Weights of one projection under the case's config.
Projection make_projection(const Case& c, reference::Projection which,
                           const Arithmetic& arithmetic);

/// Stage q_proj, k_proj, v_proj or out of the rows x: in codes where the config says so, times
/// `projection`, which make_projection made of `which`. `joint`: what the errors of x bring to
/// the result, where they are not independent.
Bounded project_rows(const Case& c, reference::Projection which, const Projection& projection,
                     const Bounded& x, const BoundOptions& options, const JointErrors& joint = {});

/// Stage q_norm or k_norm.
Bounded normalize_rows(const Case& c, Stage stage, const Bounded& x, const BoundOptions& options);

/// Stage q_rope or k_rope of the batch's rows `rows`.
Bounded rotate_rows(const Case& c, const Bounded& x, std::span<const std::int64_t> rows,
                    const BoundOptions& options);

/// What the cache holds of the rows k (kCacheK) or v: codes, or values of the declared type.
CodedRows cache_rows(const Case& c, Stage stage, const Bounded& x, const BoundOptions& options);

/// Input rows x, exact.
Bounded input_rows(const Case& c, std::span<const std::int64_t> rows);

}  // namespace attn::harness
