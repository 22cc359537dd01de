#pragma once

#include "reference/stages/weights.h"

namespace attn::reference {

/// Stage q_proj, k_proj or v_proj of the rows x [rows, hidden]: y = clip(x W^T + b), [rows,
/// heads*head_dim]. The layer as it runs rounds to config.dtype after the product and again after
/// the bias.
Matrix project(const Case& c, Projection p, const MatrixView& x, Rounding r);

}  // namespace attn::reference
