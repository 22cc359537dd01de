#pragma once

// Internal to harness/compare (Eigen): the stages of stage_bounds.h with the weights of a case.

#include <cstdint>
#include <span>

#include "harness/compare/stage_bounds.h"
#include "reference/core/case.h"
#include "reference/core/trace.h"
#include "reference/stages/weights.h"

namespace attn::harness {

/// Weights of one projection under the case's config.
Projection make_projection(const Case& c, reference::Projection which,
                           const Arithmetic& arithmetic);

/// Stage q_norm or k_norm.
Bounded normalize_rows(const Case& c, Stage stage, const Bounded& x, const BoundOptions& options);

/// Stage q_rope or k_rope of the batch's rows `rows`.
Bounded rotate_rows(const Case& c, const Bounded& x, std::span<const std::int64_t> rows,
                    const BoundOptions& options);

/// Input rows x, exact.
Bounded input_rows(const Case& c, std::span<const std::int64_t> rows);

}  // namespace attn::harness
