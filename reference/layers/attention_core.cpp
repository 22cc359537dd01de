#include "reference/layers/layers.h"
#include "reference/layers/record.h"
#include "reference/stages/attention.h"
#include "reference/stages/kv_cache.h"

namespace attn::reference {

Trace attention_core(const Case& c, Mode mode) {
  const AttentionConfig& config = c.config;
  const Rounding r(mode);
  const LogicalCache cache = read_cache(c, c.cache, r);
  const AttentionResult attended =
      attend(c, decode_matrix(c.q, c.tokens(), config.q_width()),
             as_matrix(cache.k, c.total_keys(), config.k_width()),
             as_matrix(cache.v, c.total_keys(), config.v_width()), all_rows(c), r);
  Trace trace;
  record(trace, c, Stage::kLse, attended.lse);
  record(trace, c, Stage::kAttnOut, attended.out);
  trace.cache = c.cache;
  return trace;
}

}  // namespace attn::reference
