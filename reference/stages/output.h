#pragma once

#include "reference/core/case.h"
#include "reference/stages/rounding.h"

namespace attn::reference {

/// Stage out of the rows attn_out [rows, Hq*D]: attn_out Wo^T, [rows, hidden]. No bias, no clip.
Matrix project_output(const Case& c, const MatrixView& attn_out, Rounding r);

}  // namespace attn::reference
