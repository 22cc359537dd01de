#include <array>
#include <utility>

#include "reference/layers/layers.h"
#include "reference/layers/record.h"
#include "reference/layers/shard_axis.h"
#include "reference/layers/shard_heads.h"
#include "reference/stages/output.h"

namespace attn::reference {
namespace {

/// What one device sees: its heads' weights and cache, and the whole input.
Case device_case(const Case& c, const DeviceHeads& heads) {
  Case device;
  device.config = device_config(c.config, heads);
  device.weights = take_head_weights(c.config, c.weights, heads, device.config);
  device.x = c.x;
  device.input_row_offsets = c.input_row_offsets;
  device.cache_lengths = c.cache_lengths;
  device.freqs_cis = c.freqs_cis;
  device.mask = c.mask;
  device.cache = take_kv_heads(c.cache, heads.kv_heads);
  return device;
}

/// A stage that is split between the devices: its heads lie on `axis`, each as `width` items.
struct HeadStage {
  Stage stage;
  bool of_queries;
  std::size_t axis;
  std::int64_t width;
};

std::array<HeadStage, 11> head_stages(const AttentionConfig& config) {
  const std::int64_t d = config.head_dim;
  return {{{Stage::kQProj, true, 1, d},
           {Stage::kKProj, false, 1, d},
           {Stage::kVProj, false, 1, config.head_dim_v},
           {Stage::kQNorm, true, 1, d},
           {Stage::kKNorm, false, 1, d},
           {Stage::kQRope, true, 1, d},
           {Stage::kKRope, false, 1, d},
           {Stage::kCacheK, false, 1, 1},
           {Stage::kCacheV, false, 1, 1},
           {Stage::kLse, true, 1, 1},
           {Stage::kAttnOut, true, 1, config.head_dim_v}}};
}

/// Writes a device's stages and pool over its heads of the whole trace. A kv head that several
/// devices hold is taken from the first of them, which holds the first of its query heads.
void join(const Case& c, const DeviceHeads& heads, Trace device, Trace& whole) {
  const bool first_holder = heads.q_heads.first == heads.kv_heads.first * c.config.group_size();
  for (const HeadStage& at : head_stages(c.config)) {
    if (!device.has(at.stage) || !(at.of_queries || first_holder)) continue;
    Tensor& all = whole[at.stage];
    if (all.empty()) all = Tensor(ElementType::kFloat64, stage_shape(c, at.stage));
    const Range range = at.of_queries ? heads.q_heads : heads.kv_heads;
    put(all, at.axis, range.first * at.width, device[at.stage]);
  }
  whole[Stage::kFreqsCis] = std::move(device[Stage::kFreqsCis]);
  if (first_holder) put_kv_heads(*whole.cache, heads.kv_heads, *device.cache);
}

/// Stage out of attn_out [rows, Hq*D]: the sum of what each device makes of its own columns, which
/// is what the output projection makes of attn_out when the other columns are zero. The layer as it
/// runs rounds each partial output to config.dtype, and the sum once.
Matrix all_reduce_output(const Case& c, const MatrixView& attn_out, Rounding r) {
  Matrix sum = Matrix::Zero(attn_out.rows(), c.config.hidden_size);
  for (const DeviceHeads& heads : device_heads(c.config)) {
    if (heads.q_heads.count == 0) continue;
    const std::int64_t first = heads.q_heads.first * c.config.head_dim_v;
    const std::int64_t columns = heads.q_heads.count * c.config.head_dim_v;
    Matrix own = Matrix::Zero(attn_out.rows(), attn_out.cols());
    own.middleCols(first, columns) = attn_out.middleCols(first, columns);
    sum += project_output(c, own, r);
  }
  return r.to(c.config.dtype, std::move(sum));
}

}  // namespace

Trace tensor_parallel(const Case& c, Mode mode) {
  const bool forward = c.config.entry_point == EntryPoint::kForward;
  const Rounding r(mode);
  Trace whole;
  whole.cache = c.cache;
  for (const DeviceHeads& heads : device_heads(c.config)) {
    // Without query heads there is nothing to do: another device holds the same kv head.
    if (heads.q_heads.count == 0) continue;
    const Case device = device_case(c, heads);
    join(c, heads, forward ? attend_to_heads(device, mode) : materialize(device, mode), whole);
  }
  if (forward) {
    const auto attn_out = as_matrix(whole[Stage::kAttnOut], c.tokens(), c.config.attn_width());
    record(whole, c, Stage::kOut, all_reduce_output(c, attn_out, r));
  }
  return whole;
}

}  // namespace attn::reference
