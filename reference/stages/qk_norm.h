#pragma once

#include "reference/core/config.h"
#include "reference/stages/rounding.h"

namespace attn::reference {

/// Stage q_norm or k_norm: RMS norm of each head of x [rows, heads*head_dim] on its own, with one
/// gamma [head_dim] for all heads:  y = x / sqrt(mean(x^2) + eps) * gamma. eps and gamma are
/// rounded to config.dtype before use and the result once; the arithmetic between is not rounded
/// (Zhang and Sennrich 2019; the form of the layer's GPU kernel).
Matrix qk_norm(const AttentionConfig& config, const Tensor& gamma, Matrix x, Rounding r);

}  // namespace attn::reference
