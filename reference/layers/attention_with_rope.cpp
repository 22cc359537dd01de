#include <utility>

#include "reference/layers/layers.h"
#include "reference/layers/record.h"
#include "reference/stages/attention.h"
#include "reference/stages/kv_cache.h"
#include "reference/stages/output.h"
#include "reference/stages/projection.h"
#include "reference/stages/qk_norm.h"
#include "reference/stages/rope.h"
#include "reference/stages/rope_table.h"

namespace attn::reference {
namespace {

/// From x to the filled cache: the part that forward and materialize share. x is [tokens, hidden].
void fill_cache(const Case& c, const MatrixView& x, Rounding r, Trace& trace) {
  record(trace, c, Stage::kFreqsCis, rope_table(c.config, c.freqs_cis.dim(0), r));

  Matrix k = project(c, Projection::kK, x, r);
  record(trace, c, Stage::kKProj, k);
  const Matrix v = project(c, Projection::kV, x, r);
  record(trace, c, Stage::kVProj, v);
  if (c.config.use_qk_norm) {
    k = qk_norm(c.config, c.weights.at("k_norm.weight"), std::move(k), r);
    record(trace, c, Stage::kKNorm, k);
  }
  k = rotate(c.config, c.freqs_cis, std::move(k), row_positions(c), r);
  record(trace, c, Stage::kKRope, k);

  trace.cache = store(c, k, v, r);
  LogicalCache logical = read_back(c, *trace.cache, k, v, r);
  trace[Stage::kCacheK] = std::move(logical.k);
  trace[Stage::kCacheV] = std::move(logical.v);
}

/// The rotated queries [tokens, Hq*D].
Matrix queries(const Case& c, const MatrixView& x, Rounding r, Trace& trace) {
  Matrix q = project(c, Projection::kQ, x, r);
  record(trace, c, Stage::kQProj, q);
  if (c.config.use_qk_norm) {
    q = qk_norm(c.config, c.weights.at("q_norm.weight"), std::move(q), r);
    record(trace, c, Stage::kQNorm, q);
  }
  q = rotate(c.config, c.freqs_cis, std::move(q), row_positions(c), r);
  record(trace, c, Stage::kQRope, q);
  return q;
}

}  // namespace

Trace materialize(const Case& c, Mode mode) {
  Trace trace;
  fill_cache(c, decode_matrix(c.x, c.tokens(), c.config.hidden_size), Rounding(mode), trace);
  return trace;
}

Trace attend_to_heads(const Case& c, Mode mode) {
  const Rounding r(mode);
  const Matrix x = decode_matrix(c.x, c.tokens(), c.config.hidden_size);
  Trace trace;
  fill_cache(c, x, r, trace);
  const Matrix q = queries(c, x, r, trace);

  const auto keys = as_matrix(trace[Stage::kCacheK], c.total_keys(), c.config.k_width());
  const auto values = as_matrix(trace[Stage::kCacheV], c.total_keys(), c.config.v_width());
  const AttentionResult attended = attend(c, q, keys, values, all_rows(c), r);
  record(trace, c, Stage::kLse, attended.lse);
  record(trace, c, Stage::kAttnOut, attended.out);
  return trace;
}

Trace attention_with_rope(const Case& c, Mode mode) {
  Trace trace = attend_to_heads(c, mode);
  const auto attn_out = as_matrix(trace[Stage::kAttnOut], c.tokens(), c.config.attn_width());
  record(trace, c, Stage::kOut, project_output(c, attn_out, Rounding(mode)));
  return trace;
}

}  // namespace attn::reference
