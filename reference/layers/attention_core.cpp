#include "reference/layers/layers.h"
#include "reference/layers/record.h"
#include "reference/stages/attention.h"

namespace attn::reference {

Trace attention_core(const Case& c, Mode mode) {
  const AttentionConfig& config = c.config;
  const Tensor k = logical_keys(c, c.cache);    // [keys, Hkv, D]
  const Tensor v = logical_values(c, c.cache);  // [keys, Hkv, Dv]
  const AttentionResult attended =
      attend(c, decode_matrix(c.q, c.tokens(), config.q_width()),
             as_matrix(k, c.total_keys(), config.k_width()),
             as_matrix(v, c.total_keys(), config.v_width()), all_rows(c), Rounding(mode));
  Trace trace;
  record(trace, c, Stage::kLse, attended.lse);
  record(trace, c, Stage::kAttnOut, attended.out);
  trace.cache = c.cache;
  return trace;
}

}  // namespace attn::reference
