#pragma once

#include <cstdint>
#include <vector>

#include "reference/core/trace.h"
#include "reference/stages/matrix.h"

namespace attn::reference {

/// Keeps a stage's result in the trace: float64, in stage_shape's shape.
void record(Trace& trace, const Case& c, Stage stage, const MatrixView& result);

/// 0, 1, ..., tokens-1: every query row of the batch.
std::vector<std::int64_t> all_rows(const Case& c);

}  // namespace attn::reference
