#include <algorithm>
#include <array>
#include <utility>

#include "reference/layers/layers.h"
#include "reference/layers/shard_axis.h"

namespace attn::reference {
namespace {

/// Gives `device`, a copy of the case's layer, sequences `range` of the batch: their rows, their
/// offsets rebased to 0, their lengths and their pages.
void deal(const Case& c, Range range, Case& device) {
  const std::int64_t first_row = c.row_begin(range.first);
  const Range rows{first_row, c.row_begin(range.first + range.count) - first_row};
  device.x = take(c.x, 0, rows);
  if (!c.mask.empty()) device.mask = take(c.mask, 0, rows);
  device.cache_lengths = take(c.cache_lengths, 0, range);
  device.cache.page_table = take(c.cache.page_table, 0, range);
  device.input_row_offsets = take(c.input_row_offsets, 0, {range.first, range.count + 1});
  for (std::int64_t b = 0; b <= range.count; ++b) {
    device.input_row_offsets.as<std::uint32_t>()[b] -= static_cast<std::uint32_t>(first_row);
  }
}

/// Appends a device's rows to the stages of the whole batch, from row `at[stage]` on.
void join(const Case& c, Trace device, std::array<std::int64_t, kNumStages>& at, Trace& whole) {
  for (const Stage stage : stages_of(c.config)) {
    if (stage == Stage::kFreqsCis) {
      whole[stage] = std::move(device[stage]);
      continue;
    }
    if (whole[stage].empty()) whole[stage] = Tensor(ElementType::kFloat64, stage_shape(c, stage));
    std::int64_t& row = at[static_cast<std::size_t>(stage)];
    put(whole[stage], 0, row, device[stage]);
    row += device[stage].dim(0);
  }
}

}  // namespace

Trace data_parallel(const Case& c, Mode mode) {
  // Devices past the last sequence hold none, and do nothing.
  const std::int64_t devices = std::clamp<std::int64_t>(c.batch(), 1, c.config.num_devices);
  Case device = c;  // a replica of the layer; its sequences change
  Trace whole;
  std::array<std::int64_t, kNumStages> rows{};
  for (std::int64_t i = 0; i < devices; ++i) {
    deal(c, shard_range(c.batch(), i, c.config.num_devices), device);
    const bool forward = c.config.entry_point == EntryPoint::kForward;
    Trace trace = forward ? attention_with_rope(device, mode) : materialize(device, mode);
    // The case has one pool. The pages of a device are its sequences' own, so the next device may
    // go on with the pool that this one leaves.
    device.cache.k = std::move(trace.cache->k);
    device.cache.v = std::move(trace.cache->v);
    device.cache.k_scale = std::move(trace.cache->k_scale);
    device.cache.v_scale = std::move(trace.cache->v_scale);
    join(c, std::move(trace), rows, whole);
  }
  device.cache.page_table = c.cache.page_table;
  whole.cache = std::move(device.cache);
  return whole;
}

}  // namespace attn::reference
