#pragma once

#include <cstdint>
#include <span>

#include "reference/core/case.h"
#include "reference/stages/rounding.h"

namespace attn::reference {

/// Stages lse and attn_out of some query rows.
struct AttentionResult {
  Matrix lse;  ///< [rows, Hq], natural logarithm, includes the sink
  Matrix out;  ///< [rows, Hq*Dv]
};

/// For each query row and head, over the keys k that the row's mask lets it see:
///   s_k = softcap(scale * q.K_k) + mask_k       softcap(s) = cap * tanh(s / cap)
///   p_k = exp(s_k) / (exp(sink) + sum exp(s))   o = sum p_k V_k      lse = log of the denominator
/// Query head h reads kv head h / (Hq / Hkv). A row that sees no key has o = 0 and lse = sink, or
/// -inf.
///
/// `rows` are row indices of the batch, ascending; q [rows, Hq*D] holds these rows only. keys
/// [keys, Hkv*D] and values [keys, Hkv*Dv] are the whole cache in logical order. The layer as it
/// runs takes scale, cap and sink in float32, multiplies V by exp(s_k - max) rounded to V's type
/// while it sums the unrounded ones, and rounds o once to config.dtype and lse to float32.
AttentionResult attend(const Case& c, const MatrixView& q, const MatrixView& keys,
                       const MatrixView& values, std::span<const std::int64_t> rows, Rounding r);

}  // namespace attn::reference
