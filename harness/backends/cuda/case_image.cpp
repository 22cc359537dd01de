#include "harness/backends/cuda/case_image.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <vector>

#include "gpu/faults/fault_switch.h"
#include "gpu/layers/types.h"

namespace attn::harness {
namespace {

/// [blocks, rows, columns] of `bytes` each to [blocks, columns, rows].
std::vector<std::byte> transposed(const std::byte* from, std::int64_t blocks, std::int64_t rows,
                                  std::int64_t columns, std::size_t bytes) {
  std::vector<std::byte> to(static_cast<std::size_t>(blocks * rows * columns) * bytes);
  for (std::int64_t i = 0; i < blocks * rows * columns; ++i) {
    const std::int64_t block = i / (rows * columns);
    const std::int64_t row = i / columns % rows;
    const std::int64_t at = (block * columns + i % columns) * rows + row;
    std::memcpy(to.data() + static_cast<std::size_t>(at) * bytes,
                from + static_cast<std::size_t>(i) * bytes, bytes);
  }
  return to;
}

bool heads_first(const Case& c) { return c.layout.cache == CacheOrder::kHnd; }

/// Bytes of `rows` of the tensor's first axis, however many it has.
std::size_t bytes_of_rows(const Tensor& t, std::int64_t rows) {
  if (t.empty()) return 0;
  std::int64_t elements = rows;
  for (std::size_t axis = 1; axis < t.shape().size(); ++axis) elements *= t.dim(axis);
  return static_cast<std::size_t>(elements) * element_size(t.type());
}

std::size_t add_cache(const Case& c, const char* name, const Tensor& t, std::int64_t room,
                      DeviceImage& image) {
  const std::size_t given = t.bytes().size();
  const std::size_t bytes = bytes_of_rows(t, room);
  if (!heads_first(c)) return image.add(name, bytes, t.data(), given, true);
  const std::size_t row = static_cast<std::size_t>(t.dim(4)) * element_size(t.type());
  const std::vector<std::byte> turned =
      transposed(t.data(), t.dim(0) * t.dim(1), t.dim(2), t.dim(3), row);
  return image.add(name, bytes, turned.data(), given, true);
}

/// Pages that the case's layout puts before those that hold something. They are never accessed, so
/// that they need no memory: addresses of the pool start that far before its buffer.
std::int64_t pages_before(const Case& c) {
  const Tensor& k = c.cache.k;
  const std::int64_t page = k.dim(1) * k.dim(2) * k.dim(3) * k.dim(4);
  return page > 0 ? (c.layout.pool_offset + page - 1) / page : 0;
}

/// Room for `rows`; what the tensor does not fill is poison.
std::size_t add_padded(DeviceImage& image, const char* name, const Tensor& t, std::int64_t rows,
                       bool may_change = false) {
  return image.add(name, bytes_of_rows(t, rows), t.data(), t.bytes().size(), may_change);
}

/// Rows of `from` columns as rows of `to`; what is new holds `fill`.
template <typename T>
std::vector<T> widened(const Tensor& t, std::int64_t rows, std::int64_t from, std::int64_t to,
                       std::int64_t room, T fill) {
  std::vector<T> wide(static_cast<std::size_t>(room * to), fill);
  for (std::int64_t r = 0; r < rows; ++r) {
    std::copy_n(t.as<T>() + r * from, from, wide.data() + r * to);
  }
  return wide;
}

template <typename T>
std::size_t add_vector(DeviceImage& image, const char* name, const std::vector<T>& values) {
  const std::size_t bytes = values.size() * sizeof(T);
  return image.add(name, bytes, values.data(), bytes, false);
}

std::size_t add_mask(const Case& c, const Capacity& room, DeviceImage& image) {
  if (c.mask.empty()) return image.add("mask", 0, nullptr, 0, false);
  return add_vector(image, "mask",
                    widened<float>(c.mask, c.tokens(), c.mask.dim(1), room.mask_columns,
                                   room.tokens, std::numeric_limits<float>::quiet_NaN()));
}

/// Offsets, lengths and pages, with sequences beyond the case's that ask for nothing.
void add_batch(const Case& c, const Capacity& room, CaseImage& m) {
  std::vector<std::uint32_t> offsets =
      widened<std::uint32_t>(c.input_row_offsets, 1, c.batch() + 1, room.batch + 1, 1, 0);
  std::fill(offsets.begin() + c.batch() + 1, offsets.end(),
            offsets[static_cast<std::size_t>(c.batch())]);
  m.row_offsets = add_vector(m.image, "input_row_offsets", offsets);
  m.cache_lengths =
      add_vector(m.image, "cache_lengths",
                 widened<std::uint32_t>(c.cache_lengths, 1, c.batch(), room.batch, 1, 0));
  std::vector<std::uint32_t> table = widened<std::uint32_t>(
      c.cache.page_table, c.batch(), c.cache.page_table.dim(1), room.table_columns, room.batch,
      static_cast<std::uint32_t>(c.cache.num_pages()));
  for (std::uint32_t& page : table) page += static_cast<std::uint32_t>(pages_before(c));
  m.page_table = add_vector(m.image, "page_table", table);
}

}  // namespace

gpu::BatchShape shape_of(const Case& c) {
  gpu::BatchShape shape;
  for (std::int64_t b = 0; b < c.batch(); ++b) {
    shape.rows.push_back(c.row_count(b));
    shape.cached.push_back(c.cached(b));
  }
  return shape;
}

gpu::BatchShape longer(const gpu::BatchShape& a, const gpu::BatchShape& b) {
  gpu::BatchShape shape = a;
  for (std::size_t i = 0; i < shape.rows.size(); ++i) {
    shape.rows[i] = std::max(shape.rows[i], b.rows.at(i));
    shape.cached[i] = std::max(shape.cached[i], b.cached.at(i));
  }
  return shape;
}

CaseImage lay_out(const Case& c, const gpu::AttentionLayer& layer, const gpu::LayerPlan& plan,
                  const Capacity& room) {
  const AttentionConfig& config = c.config;
  const bool layer_case = !config.starts_at_attention();
  const bool forward = config.entry_point == EntryPoint::kForward;
  const bool attends = config.entry_point != EntryPoint::kMaterializeKvFromHidden;
  CaseImage m;
  m.room = room;
  m.workspace = m.image.add_workspace(plan.workspace_bytes, plan.zeroed_bytes);
  m.x = add_padded(m.image, "x", c.x, room.tokens);
  m.q = add_padded(m.image, "q", c.q, room.tokens);
  m.freqs_cis = add_padded(m.image, "freqs_cis", c.freqs_cis, room.positions);
  m.mask = add_mask(c, room, m.image);
  add_batch(c, room, m);
  m.k = add_cache(c, "the cache of keys", c.cache.k, room.pages, m.image);
  m.v = add_cache(c, "the cache of values", c.cache.v, room.pages, m.image);
  // Scales of tokens are written with them; the others are given.
  const bool by_token = config.kv_cache.scale_granularity == ScaleGranularity::kTokenHead;
  const auto scales = [&](const char* name, const Tensor& t) {
    if (by_token) return add_padded(m.image, name, t, room.pages, layer_case);
    return m.image.add(name, t.bytes().size(), t.data(), t.bytes().size(), false);
  };
  m.k_scale = scales("k_scale", c.cache.k_scale);
  m.v_scale = scales("v_scale", c.cache.v_scale);
  const auto output = [&](const char* name, std::int64_t width, bool present, std::size_t bytes) {
    const auto size = present ? static_cast<std::size_t>(room.tokens * width) * bytes : 0;
    return m.image.add(name, size, nullptr, 0, true);
  };
  const std::size_t bytes = element_size(config.dtype);
  m.qkv = output("qkv", layer.qkv_width(), layer_case, bytes);
  m.q_norm = output("q_norm", config.q_width(), forward && config.use_qk_norm, bytes);
  m.k_norm = output("k_norm", config.k_width(), layer_case && config.use_qk_norm, bytes);
  m.q_rope = output("q_rope", config.q_width(), forward, bytes);
  m.k_rope = output("k_rope", config.k_width(), layer_case, bytes);
  m.lse = output("lse", config.num_attention_heads, attends, sizeof(float));
  m.attn_out = output("attn_out", config.attn_width(), attends, bytes);
  m.out = output("out", config.hidden_size, forward, bytes);
  return m;
}

gpu::CacheScales cache_scales(ScaleGranularity granularity) {
  switch (granularity) {
    case ScaleGranularity::kTensor:
      return gpu::CacheScales::kTensor;
    case ScaleGranularity::kHead:
      return gpu::CacheScales::kHead;
    case ScaleGranularity::kTokenHead:
      return gpu::CacheScales::kTokenHead;
    case ScaleGranularity::kNone:
      break;
  }
  return gpu::CacheScales::kNone;
}

namespace {
gpu::CacheView cache_view(const Case& c, const CaseImage& m) {
  const KvCache& cache = c.cache;
  const std::int64_t heads = c.config.num_key_value_heads;
  gpu::CacheView view;
  view.type = gpu::type_of(cache.k.type());
  const bool by_head = heads_first(c);
  const auto set_strides = [&](std::int64_t dim, std::int64_t& page, std::int64_t& token,
                               std::int64_t& head) {
    head = by_head ? cache.page_size * dim : dim;
    token = by_head ? dim : heads * dim;
    page = cache.num_layers * cache.page_size * heads * dim;
  };
  set_strides(c.config.head_dim, view.k_page_stride, view.k_token_stride, view.k_head_stride);
  set_strides(c.config.head_dim_v, view.v_page_stride, view.v_token_stride, view.v_head_stride);
  const auto bytes = static_cast<std::int64_t>(element_size(cache.k.type()));
  // Layers into the page, and back over the pages that are not there.
  const auto first = [&](std::int64_t page_stride) {
    const std::int64_t layer = ATTN_FAULT(layer_zero, cache.layer > 0) ? 0 : cache.layer;
    return (layer * page_stride / cache.num_layers - pages_before(c) * page_stride) * bytes;
  };
  view.k = m.image.at<std::byte>(m.k) + first(view.k_page_stride);
  view.v = m.image.at<std::byte>(m.v) + first(view.v_page_stride);
  view.scales = cache_scales(c.config.kv_cache.scale_granularity);
  if (view.scales != gpu::CacheScales::kNone) {
    const bool by_token = view.scales == gpu::CacheScales::kTokenHead;
    view.scale_head_stride = 1;
    view.scale_token_stride = heads;
    view.scale_page_stride = cache.num_layers * cache.page_size * heads;
    const std::int64_t layer =
        by_token ? cache.layer * cache.page_size * heads - pages_before(c) * view.scale_page_stride
                 : 0;
    view.k_scale = m.image.at<float>(m.k_scale) + layer;
    view.v_scale = m.image.at<float>(m.v_scale) + layer;
  }
  view.page_table = m.image.at<std::uint32_t>(m.page_table);
  view.table_stride = m.room.table_columns;
  view.page_size = cache.page_size;
  return view;
}

}  // namespace

gpu::LayerTensors tensors_of(const Case& c, const CaseImage& m) {
  const bool norm = c.config.use_qk_norm;
  gpu::LayerTensors t;
  t.x = m.image.at<void>(m.x);
  t.q = m.image.at<void>(m.q);
  t.freqs_cis = m.image.at<float>(m.freqs_cis);
  t.mask = c.mask.empty() ? nullptr : m.image.at<float>(m.mask);
  t.mask_stride = m.room.mask_columns;
  t.row_offsets = m.image.at<std::uint32_t>(m.row_offsets);
  t.cache_lengths = m.image.at<std::uint32_t>(m.cache_lengths);
  t.cache = cache_view(c, m);
  t.out = m.image.at<void>(m.out);
  t.qkv = m.image.at<void>(m.qkv);
  t.q_norm = norm ? m.image.at<void>(m.q_norm) : nullptr;
  t.k_norm = norm ? m.image.at<void>(m.k_norm) : nullptr;
  t.q_rope = m.image.at<void>(m.q_rope);
  t.k_rope = m.image.at<void>(m.k_rope);
  t.lse = m.image.at<float>(m.lse);
  t.attn_out = m.image.at<void>(m.attn_out);
  return t;
}

namespace {

/// Columns first .. of the rows of `width` columns at `source` become a stage.
void read_columns(const Case& c, Stage stage, ElementType type, const std::byte* source,
                  std::int64_t first, std::int64_t width, Trace& trace) {
  Tensor tensor(type, stage_shape(c, stage));
  const std::size_t bytes = element_size(type);
  const std::int64_t rows = c.tokens();
  if (rows == 0) {
    trace[stage] = std::move(tensor);
    return;
  }
  const auto row_bytes = tensor.bytes().size() / static_cast<std::size_t>(rows);
  for (std::int64_t r = 0; r < rows; ++r) {
    std::memcpy(tensor.data() + static_cast<std::size_t>(r) * row_bytes,
                source + static_cast<std::size_t>(r * width + first) * bytes, row_bytes);
  }
  trace[stage] = std::move(tensor);
}

}  // namespace

Trace read_trace(const Case& c, const CaseImage& m, std::int64_t qkv_width) {
  const AttentionConfig& config = c.config;
  const bool forward = config.entry_point == EntryPoint::kForward;
  Trace trace;
  const auto dense = [&](Stage stage, ElementType type, std::size_t offset, std::int64_t width) {
    read_columns(c, stage, type, m.image.result(offset), 0, width, trace);
  };
  trace.cache = c.cache;
  if (!config.starts_at_attention()) {
    const std::byte* const qkv = m.image.result(m.qkv);
    const std::int64_t k = forward ? config.q_width() : 0;
    if (forward) read_columns(c, Stage::kQProj, config.dtype, qkv, 0, qkv_width, trace);
    read_columns(c, Stage::kKProj, config.dtype, qkv, k, qkv_width, trace);
    read_columns(c, Stage::kVProj, config.dtype, qkv, k + config.k_width(), qkv_width, trace);
    if (config.use_qk_norm) {
      if (forward) dense(Stage::kQNorm, config.dtype, m.q_norm, config.q_width());
      dense(Stage::kKNorm, config.dtype, m.k_norm, config.k_width());
    }
    if (forward) dense(Stage::kQRope, config.dtype, m.q_rope, config.q_width());
    dense(Stage::kKRope, config.dtype, m.k_rope, config.k_width());
    const auto read = [&](std::size_t offset, Tensor& tensor) {
      std::ranges::copy_n(m.image.result(offset), std::ssize(tensor.bytes()), tensor.data());
    };
    const auto read_cache = [&](std::size_t offset, Tensor& t) {
      if (!heads_first(c)) return read(offset, t);
      const std::size_t row = static_cast<std::size_t>(t.dim(4)) * element_size(t.type());
      const auto turned =
          transposed(m.image.result(offset), t.dim(0) * t.dim(1), t.dim(3), t.dim(2), row);
      std::ranges::copy(turned, t.data());
    };
    read_cache(m.k, trace.cache->k);
    read_cache(m.v, trace.cache->v);
    read(m.k_scale, trace.cache->k_scale);
    read(m.v_scale, trace.cache->v_scale);
  }
  trace[Stage::kCacheK] = logical_keys(c, *trace.cache);
  trace[Stage::kCacheV] = logical_values(c, *trace.cache);
  if (config.entry_point == EntryPoint::kMaterializeKvFromHidden) return trace;
  dense(Stage::kLse, ElementType::kFloat32, m.lse, config.num_attention_heads);
  dense(Stage::kAttnOut, config.dtype, m.attn_out, config.attn_width());
  if (forward) dense(Stage::kOut, config.dtype, m.out, config.hidden_size);
  return trace;
}

}  // namespace attn::harness
