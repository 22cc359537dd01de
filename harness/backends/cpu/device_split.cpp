#include "harness/backends/cpu/device_split.h"

#include <algorithm>
#include <cstring>
#include <span>
#include <utility>

#include "harness/backends/cpu/device_layer.h"
#include "harness/backends/cpu/fault_switch.h"
#include "reference/core/devices.h"

namespace attn::harness::cpu {
namespace {

/// Rows of `tensor`'s first axis.
Tensor take_rows(const Tensor& tensor, const Range& rows) {
  Shape shape = tensor.shape();
  const std::size_t row_bytes =
      shape[0] == 0 ? 0 : tensor.bytes().size() / static_cast<std::size_t>(shape[0]);
  shape[0] = rows.count;
  Tensor taken(tensor.type(), std::move(shape));
  const std::span<std::byte> bytes = taken.bytes();
  if (!bytes.empty()) {
    std::memcpy(bytes.data(), tensor.data() + static_cast<std::size_t>(rows.first) * row_bytes,
                bytes.size());
  }
  return taken;
}

enum class Direction { kTake, kPutBack };

/// Copies the heads of `part` [.., heads.count, ..] from or to `whole`, heads being axis `axis`.
void copy_heads(Direction direction, std::size_t axis, const Range& heads, Tensor& whole,
                Tensor& part) {
  if (part.bytes().empty()) return;
  std::int64_t outer = 1;
  for (std::size_t a = 0; a < axis; ++a) outer *= whole.dim(a);
  const std::size_t whole_row = whole.bytes().size() / static_cast<std::size_t>(outer);
  const std::size_t head_bytes = whole_row / static_cast<std::size_t>(whole.dim(axis));
  const std::size_t part_row = head_bytes * static_cast<std::size_t>(heads.count);
  for (std::size_t i = 0; i < static_cast<std::size_t>(outer); ++i) {
    std::byte* const in_whole =
        whole.data() + i * whole_row + static_cast<std::size_t>(heads.first) * head_bytes;
    std::byte* const in_part = part.data() + i * part_row;
    if (direction == Direction::kTake) std::memcpy(in_part, in_whole, part_row);
    if (direction == Direction::kPutBack) std::memcpy(in_whole, in_part, part_row);
  }
}

/// Axis of the heads in a pool [pages, layers, page_size, heads, ..] and in its scales, or nothing
/// where all heads share one scale.
constexpr std::size_t kPoolAxis = 3;

bool has_heads(const Tensor& scales) { return !scales.empty() && !scales.shape().empty(); }

std::size_t scale_axis(const Tensor& scales) { return scales.shape().size() - 1; }

Tensor take_heads(Tensor& whole, std::size_t axis, const Range& heads) {
  Shape shape = whole.shape();
  shape[axis] = heads.count;
  Tensor part(whole.type(), std::move(shape));
  copy_heads(Direction::kTake, axis, heads, whole, part);
  return part;
}

/// A cache of some kv heads.
KvCache take_heads(KvCache& whole, const Range& heads) {
  KvCache part;
  part.page_size = whole.page_size;
  part.num_layers = whole.num_layers;
  part.layer = whole.layer;
  part.page_table = whole.page_table;
  part.k = take_heads(whole.k, kPoolAxis, heads);
  part.v = take_heads(whole.v, kPoolAxis, heads);
  const auto take_scale = [&](Tensor& scale) {
    return has_heads(scale) ? take_heads(scale, scale_axis(scale), heads) : scale;
  };
  part.k_scale = take_scale(whole.k_scale);
  part.v_scale = take_scale(whole.v_scale);
  return part;
}

void put_heads_back(KvCache& part, const Range& heads, KvCache& whole) {
  const auto put = [&](Tensor& to, Tensor& from, std::size_t axis) {
    copy_heads(Direction::kPutBack, axis, heads, to, from);
  };
  put(whole.k, part.k, kPoolAxis);
  put(whole.v, part.v, kPoolAxis);
  if (!has_heads(part.k_scale)) return;
  put(whole.k_scale, part.k_scale, scale_axis(part.k_scale));
  put(whole.v_scale, part.v_scale, scale_axis(part.v_scale));
}

/// Where a device's rows and columns lie in a stage of the whole layer.
struct Place {
  std::int64_t row = 0;
  std::int64_t column = 0;
};

/// Puts (or adds) a device's stage to the whole one, both [rows, columns].
void place(const Tensor& part, const Place& at, bool add, Tensor& whole) {
  const std::int64_t width = part.dim(1);
  for (std::int64_t i = 0; i < part.dim(0); ++i) {
    const float* const source = part.as<float>() + i * width;
    float* const target = whole.as<float>() + (at.row + i) * whole.dim(1) + at.column;
    for (std::int64_t j = 0; j < width; ++j) target[j] = add ? target[j] + source[j] : source[j];
  }
}

/// First column of a device's part of a stage.
std::int64_t first_column(const AttentionConfig& config, const DeviceHeads& heads, Stage stage) {
  switch (stage) {
    case Stage::kQProj:
    case Stage::kQNorm:
    case Stage::kQRope:
      return heads.q_heads.first * config.head_dim;
    case Stage::kKProj:
    case Stage::kKNorm:
    case Stage::kKRope:
      return heads.kv_heads.first * config.head_dim;
    case Stage::kVProj:
      return heads.kv_heads.first * config.head_dim_v;
    case Stage::kLse:
      return heads.q_heads.first;
    case Stage::kAttnOut:
      return heads.q_heads.first * config.head_dim_v;
    default:
      return 0;
  }
}

void place_stages(const Case& c, const Trace& part, const DeviceHeads& heads, std::int64_t row,
                  bool add_out, Trace& whole) {
  for (const Stage stage : all_stages()) {
    if (!part.has(stage)) continue;
    if (!whole.has(stage)) whole[stage] = Tensor(ElementType::kFloat32, stage_shape(c, stage));
    place(part[stage], {row, first_column(c.config, heads, stage)}, add_out && stage == Stage::kOut,
          whole[stage]);
  }
}

std::vector<DeviceHeads> split_heads(const AttentionConfig& config) {
  std::vector<DeviceHeads> devices = device_heads(config);
  for (DeviceHeads& heads : devices) {
    if (ATTN_FAULT(tp_replicas_by_modulo,
                   config.kv_head_replication && config.num_key_value_heads > 1)) {
      heads.kv_heads.first = (&heads - devices.data()) % config.num_key_value_heads;
    }
  }
  if (ATTN_FAULT(tp_uneven_device_dropped, devices.size() > 1 && devices.front().q_heads.count !=
                                                                     devices.back().q_heads.count))
    devices.pop_back();
  return devices;
}

Trace run_tensor_parallel(const Case& c, const AttendOptions& options) {
  Trace whole;
  whole.cache = c.cache;
  bool is_first = true;
  for (const DeviceHeads& heads : split_heads(c.config)) {
    if (heads.q_heads.count == 0) continue;
    Case local;
    local.config = c.config;
    local.config.num_attention_heads = heads.q_heads.count;
    local.config.num_key_value_heads = heads.kv_heads.count;
    local.x = c.x;
    local.input_row_offsets = c.input_row_offsets;
    local.cache_lengths = c.cache_lengths;
    local.freqs_cis = c.freqs_cis;
    local.mask = c.mask;
    Range sinks = heads.q_heads;
    if (ATTN_FAULT(tp_sinks_of_first_heads, c.has_sinks() && sinks.first != 0)) sinks.first = 0;
    if (c.has_sinks()) local.weights["sinks"] = take_rows(c.weights.at("sinks"), sinks);
    local.cache = take_heads(*whole.cache, heads.kv_heads);
    Trace part = run_device({c, local, heads}, options);
    put_heads_back(*part.cache, heads.kv_heads, *whole.cache);
    place_stages(c, part, heads, 0, !is_first && !ATTN_FAULT(tp_output_not_summed), whole);
    is_first = false;
  }
  return whole;
}

Trace run_data_parallel(const Case& c, const AttendOptions& options) {
  const DeviceHeads all_heads = device_heads(c.config).front();
  Trace whole;
  whole.cache = c.cache;
  for (std::int64_t i = 0; i < c.config.num_devices; ++i) {
    const Range sequences = shard_range(c.batch(), i, c.config.num_devices);
    // The first device runs even so: where there are no rows at all, stages are there and empty.
    if (sequences.count == 0 && i > 0) break;
    if (ATTN_FAULT(dp_smaller_shard_dropped,
                   sequences.count < shard_range(c.batch(), 0, c.config.num_devices).count))
      break;
    const std::int64_t first_row = c.row_begin(sequences.first);
    const Range rows{first_row, c.row_begin(sequences.first + sequences.count) - first_row};
    Case local;
    local.config = c.config;
    local.x = take_rows(c.x, rows);
    local.input_row_offsets =
        take_rows(c.input_row_offsets, {sequences.first, sequences.count + 1});
    for (std::int64_t b = 0; b <= sequences.count; ++b) {
      local.input_row_offsets.as<std::uint32_t>()[b] -= static_cast<std::uint32_t>(first_row);
    }
    local.cache_lengths = take_rows(c.cache_lengths, sequences);
    local.freqs_cis = c.freqs_cis;
    if (!c.mask.empty()) local.mask = take_rows(c.mask, rows);
    if (c.has_sinks()) local.weights["sinks"] = c.weights.at("sinks");
    local.cache = *whole.cache;
    local.cache.page_table = take_rows(
        c.cache.page_table,
        ATTN_FAULT(dp_pages_of_first_shard, i > 0) ? Range{0, sequences.count} : sequences);
    Trace part = run_device({c, local, all_heads}, options);
    part.cache->page_table = c.cache.page_table;
    whole.cache = std::move(part.cache);
    place_stages(c, part, all_heads, first_row, false, whole);
  }
  return whole;
}

}  // namespace

Trace run_on_devices(const Case& c, const AttendOptions& options) {
  switch (c.config.variant) {
    case Variant::kTensorParallel:
      return run_tensor_parallel(c, options);
    case Variant::kDataParallel:
      return run_data_parallel(c, options);
    default:
      return run_device({c, c, device_heads(c.config).front()}, options);
  }
}

}  // namespace attn::harness::cpu
