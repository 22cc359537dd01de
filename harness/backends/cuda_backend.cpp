#include "harness/backends/cuda_backend.h"

#include "reference/core/error.h"

#if ATTN_WITH_CUDA
#include <algorithm>
#include <cstring>
#include <mutex>
#include <vector>

#include "gpu/device/device.h"
#include "gpu/layers/layer.h"
#include "gpu/layers/types.h"
#endif

namespace attn::harness {

#if ATTN_WITH_CUDA
namespace {

/// Device memory of one run, in one allocation: buffers with guards between them. Everything is
/// filled with kPoison first, which is NaN in every float type, so that reads of what was never
/// written show; after the run the guards must still hold it and the inputs must be unchanged.
class DeviceImage {
 public:
  /// Space for `bytes`; returns its offset. `data` null: an output, poisoned.
  std::size_t add(const char* name, std::size_t bytes, const void* data, bool may_change) {
    const std::size_t offset = host_.empty() ? kGuard : host_.size();  // a guard ends each part
    const std::size_t end = (offset + bytes + kGuard - 1) / kGuard * kGuard + kGuard;
    host_.resize(end, kPoison);
    if (bytes > 0 && data != nullptr) std::memcpy(host_.data() + offset, data, bytes);
    parts_.push_back({name, offset, bytes, may_change});
    return offset;
  }
  std::size_t add(const char* name, const Tensor& tensor, bool may_change = false) {
    return add(name, tensor.bytes().size(), tensor.data(), may_change);
  }
  /// Zeros in place of the poison.
  void clear(std::size_t offset, std::size_t bytes) {
    if (bytes > 0) std::memset(host_.data() + offset, 0, bytes);
  }
  std::size_t size() const { return host_.size(); }

  void upload(std::byte* device, gpu::StreamHandle stream) {
    device_ = device;
    gpu::copy_to_device(device, host_.data(), host_.size(), stream);
  }
  /// Another copy of the image, uploaded before.
  void use(std::byte* device) { device_ = device; }
  void download(const gpu::Stream& stream) {
    after_.resize(host_.size());
    gpu::copy_to_host(after_.data(), device_, after_.size(), stream.get());
    stream.synchronize();
  }
  /// Throws Error naming the buffer whose guard or whose input bytes the run wrote over.
  void check() const;

  template <typename T>
  T* at(std::size_t offset) const {
    return reinterpret_cast<T*>(device_ + offset);
  }
  const std::byte* result(std::size_t offset) const { return after_.data() + offset; }

 private:
  static constexpr std::size_t kGuard = 256;
  static constexpr std::byte kPoison{0xff};
  struct Part {
    const char* name;
    std::size_t offset;
    std::size_t bytes;
    bool may_change;
  };
  std::vector<std::byte> host_;
  std::vector<std::byte> after_;
  std::vector<Part> parts_;
  std::byte* device_ = nullptr;
};

void DeviceImage::check() const {
  std::size_t guard = 0;
  const auto untouched = [&](std::size_t begin, std::size_t end) {
    return std::memcmp(host_.data() + begin, after_.data() + begin, end - begin) == 0;
  };
  for (const Part& part : parts_) {
    if (!untouched(guard, part.offset)) {
      throw Error(ErrorKind::kInternal,
                  std::string("cuda: the guard before ") + part.name + " was written over");
    }
    guard = part.offset + part.bytes;
    if (!part.may_change && !untouched(part.offset, guard)) {
      throw Error(ErrorKind::kInternal, std::string("cuda: the input ") + part.name + " changed");
    }
  }
  if (!untouched(guard, host_.size())) {
    throw Error(ErrorKind::kInternal,
                std::string("cuda: the guard behind ") + parts_.back().name + " was written over");
  }
}

/// A stream and memory that grows; kept from run to run, because allocating costs more than a small
/// case.
struct Context {
  gpu::Stream stream;
  gpu::Buffer memory;
};

gpu::LayerOptions layer_options_of(const CudaOptions& options) {
  gpu::LayerOptions layer;
  layer.fused_head_pass = options.fused;
  layer.plain_attention = options.plain_attention;
  layer.cublas = options.cublas;
  layer.fixed_splits = options.splits;
  return layer;
}

gpu::BatchShape shape_of(const Case& c) {
  gpu::BatchShape shape;
  for (std::int64_t b = 0; b < c.batch(); ++b) {
    shape.rows.push_back(c.row_count(b));
    shape.cached.push_back(c.cached(b));
  }
  return shape;
}

class CudaBackend final : public Backend {
 public:
  explicit CudaBackend(const CudaOptions& options) : options_(options) {}

  std::string name() const override;
  std::string unsupported_reason(const AttentionConfig& config) const override {
    return gpu::unsupported_reason(config);
  }
  Arithmetic arithmetic(const AttentionConfig& config) const override;
  Trace run(const Case& c, std::span<const Stage> wanted) const override;

 private:
  gpu::LayerOptions layer_options() const { return layer_options_of(options_); }
  std::unique_ptr<Context> take_context() const;
  void give_back(std::unique_ptr<Context> context) const;

  CudaOptions options_;
  mutable std::mutex mutex_;
  mutable std::vector<std::unique_ptr<Context>> idle_;
};

std::string CudaBackend::name() const {
  std::string words;
  if (!options_.fused) words += ",fused=0";
  if (options_.plain_attention) words += ",attention=plain";
  if (!options_.cublas) words += ",gemm=own";
  if (options_.splits > 0) words += ",splits=" + std::to_string(options_.splits);
  if (!words.empty()) words[0] = ':';
  return "cuda" + words;
}

Arithmetic CudaBackend::arithmetic(const AttentionConfig& config) const {
  Arithmetic a;
  a.store = a.out = config.dtype;
  a.cache = config.kv_cache.dtype;
  const bool float32_products =
      config.quant ? !gpu::uses_coded_products(config) : config.dtype == ElementType::kFloat32;
  if (!float32_products) a.projection_acc = Accumulator::kFloat32TensorCore;
  a.exp_rel = 0x1p-22;
  a.block = gpu::kPlainBlock;
  if (!gpu::uses_tensor_cores(config, layer_options())) return a;
  a.attention_acc = Accumulator::kFloat32TensorCore;
  a.probabilities = config.dtype;
  a.block = gpu::kTensorCoreBlock;
  // Up to eight warps of the decode kernel are parts too. How many splits a case gets depends on
  // its lengths; the declaration is for all of them.
  a.splits = options_.splits > 0 ? options_.splits + 8 : gpu::kMostSplits + 8;
  return a;
}

std::unique_ptr<Context> CudaBackend::take_context() const {
  const std::lock_guard lock(mutex_);
  if (idle_.empty()) return std::make_unique<Context>();
  auto context = std::move(idle_.back());
  idle_.pop_back();
  return context;
}

void CudaBackend::give_back(std::unique_ptr<Context> context) const {
  const std::lock_guard lock(mutex_);
  idle_.push_back(std::move(context));
}

/// Offsets of the tensors of one case in its image.
struct CaseImage {
  DeviceImage image;
  std::size_t x = 0, q = 0, freqs_cis = 0, mask = 0, row_offsets = 0, cache_lengths = 0;
  std::size_t k = 0, v = 0, k_scale = 0, v_scale = 0, page_table = 0, workspace = 0, out = 0;
  std::size_t qkv = 0, q_norm = 0, k_norm = 0, q_rope = 0, k_rope = 0, lse = 0, attn_out = 0;
};

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

std::size_t add_cache(const Case& c, const char* name, const Tensor& t, DeviceImage& image) {
  if (!heads_first(c)) return image.add(name, t, true);
  const std::size_t row = static_cast<std::size_t>(t.dim(4)) * element_size(t.type());
  const std::vector<std::byte> turned =
      transposed(t.data(), t.dim(0) * t.dim(1), t.dim(2), t.dim(3), row);
  return image.add(name, turned.size(), turned.data(), true);
}

/// Pages that the case's layout puts before those that hold something. They are never accessed, so
/// that they need no memory: addresses of the pool start that far before its buffer.
std::int64_t pages_before(const Case& c) {
  const Tensor& k = c.cache.k;
  const std::int64_t page = k.dim(1) * k.dim(2) * k.dim(3) * k.dim(4);
  return page > 0 ? (c.layout.pool_offset + page - 1) / page : 0;
}

CaseImage lay_out(const Case& c, const gpu::AttentionLayer& layer, const gpu::LayerPlan& plan) {
  const AttentionConfig& config = c.config;
  const bool layer_case = !config.starts_at_attention();
  const bool forward = config.entry_point == EntryPoint::kForward;
  const bool attends = config.entry_point != EntryPoint::kMaterializeKvFromHidden;
  CaseImage m;
  m.x = m.image.add("x", c.x);
  m.q = m.image.add("q", c.q);
  m.freqs_cis = m.image.add("freqs_cis", c.freqs_cis);
  m.mask = m.image.add("mask", c.mask);
  m.row_offsets = m.image.add("input_row_offsets", c.input_row_offsets);
  m.cache_lengths = m.image.add("cache_lengths", c.cache_lengths);
  m.k = add_cache(c, "the cache of keys", c.cache.k, m.image);
  m.v = add_cache(c, "the cache of values", c.cache.v, m.image);
  // Scales of tokens are written with them; the others are given.
  const bool makes_scales =
      layer_case && config.kv_cache.scale_granularity == ScaleGranularity::kTokenHead;
  m.k_scale = m.image.add("k_scale", c.cache.k_scale, makes_scales);
  m.v_scale = m.image.add("v_scale", c.cache.v_scale, makes_scales);
  Tensor table = c.cache.page_table;
  for (std::int64_t i = 0; i < table.size(); ++i) {
    table.as<std::uint32_t>()[i] += static_cast<std::uint32_t>(pages_before(c));
  }
  m.page_table = m.image.add("page_table", table);
  const auto output = [&](const char* name, std::int64_t width, bool present, std::size_t bytes) {
    const auto size = present ? static_cast<std::size_t>(plan.tokens * width) * bytes : 0;
    return m.image.add(name, size, nullptr, true);
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
  m.workspace = m.image.add("workspace", plan.workspace_bytes, nullptr, true);
  m.image.clear(m.workspace, plan.zeroed_bytes);
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
    return (cache.layer * page_stride / cache.num_layers - pages_before(c) * page_stride) * bytes;
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
  view.table_stride = cache.page_table.dim(1);
  view.page_size = cache.page_size;
  return view;
}

gpu::LayerTensors tensors_of(const Case& c, const CaseImage& m) {
  const bool norm = c.config.use_qk_norm;
  gpu::LayerTensors t;
  t.x = m.image.at<void>(m.x);
  t.q = m.image.at<void>(m.q);
  t.freqs_cis = m.image.at<float>(m.freqs_cis);
  t.mask = c.mask.empty() ? nullptr : m.image.at<float>(m.mask);
  t.mask_stride = c.mask.empty() ? 0 : c.mask.dim(1);
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

Trace CudaBackend::run(const Case& c, std::span<const Stage> /*wanted*/) const {
  const gpu::AttentionLayer layer(c.config, c.weights, layer_options());
  const gpu::LayerPlan plan = layer.plan(shape_of(c));
  CaseImage m = lay_out(c, layer, plan);
  auto context = take_context();
  if (context->memory.size() < m.image.size()) {
    context->memory = gpu::Buffer();  // before the larger one is asked for
    context->memory = gpu::Buffer(m.image.size());
  }
  m.image.upload(context->memory.data(), context->stream.get());
  layer.run(plan, tensors_of(c, m), m.image.at<void>(m.workspace), context->stream.get());
  m.image.download(context->stream);
  give_back(std::move(context));
  m.image.check();
  return read_trace(c, m, layer.qkv_width());
}

class CudaPreparedRuns final : public PreparedRuns {
 public:
  CudaPreparedRuns(const Case& c, const CudaOptions& options, int copies)
      : case_(c),
        layer_(c.config, c.weights, layer_options_of(options)),
        plan_(layer_.plan(shape_of(c))),
        image_(lay_out(c, layer_, plan_)) {
    for (int i = 0; i < copies; ++i) {
      memory_.emplace_back(image_.image.size());
      image_.image.upload(memory_.back().data(), stream_.get());
      stream_.synchronize();
      gpu::LayerTensors t = tensors_of(c, image_);
      t.qkv = t.q_norm = t.k_norm = t.q_rope = t.k_rope = nullptr;
      if (!c.config.starts_at_attention()) t.attn_out = t.lse = nullptr;
      tensors_.push_back(t);
      workspaces_.push_back(image_.image.at<void>(image_.workspace));
    }
    launch_all(stream_.get());  // loads the kernels
    stream_.synchronize();
    graph_ = std::make_unique<gpu::Graph>(stream_,
                                          [&](gpu::StreamHandle stream) { launch_all(stream); });
  }

  double milliseconds(int rounds, bool in_graph) override {
    timer_.start(stream_.get());
    for (int r = 0; r < rounds; ++r) {
      if (in_graph) {
        graph_->launch(stream_.get());
      } else {
        launch_all(stream_.get());
      }
    }
    timer_.stop(stream_.get());
    return timer_.milliseconds();
  }

  Trace replay(const Case& other) override {
    CaseImage image = lay_out(other, layer_, plan_);
    if (image.image.size() != image_.image.size()) {
      throw Error(ErrorKind::kUsage, "cuda: the replayed case has other shapes than the prepared");
    }
    image.image.upload(memory_.front().data(), stream_.get());
    graph_->launch(stream_.get());
    image.image.download(stream_);
    image.image.check();
    return read_last(other, image);
  }

  Trace output(int copy) override {
    image_.image.use(memory_.at(static_cast<std::size_t>(copy)).data());
    image_.image.download(stream_);
    image_.image.check();
    Trace all = read_trace(case_, image_, layer_.qkv_width());
    Trace trace;
    const Stage last = case_.config.starts_at_attention()                 ? Stage::kAttnOut
                       : case_.config.entry_point == EntryPoint::kForward ? Stage::kOut
                                                                          : Stage::kCacheK;
    trace[last] = all[last];
    trace.cache = all.cache;
    return trace;
  }

 private:
  Trace read_last(const Case& c, const CaseImage& image) const {
    const Trace all = read_trace(c, image, layer_.qkv_width());
    Trace trace;
    const Stage last = c.config.starts_at_attention()                 ? Stage::kAttnOut
                       : c.config.entry_point == EntryPoint::kForward ? Stage::kOut
                                                                      : Stage::kCacheK;
    trace[last] = all[last];
    trace.cache = all.cache;
    return trace;
  }
  void launch_all(gpu::StreamHandle stream) {
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
      layer_.run(plan_, tensors_[i], workspaces_[i], stream);
    }
  }

  const Case& case_;
  gpu::Stream stream_;
  gpu::AttentionLayer layer_;
  gpu::LayerPlan plan_;
  CaseImage image_;
  std::vector<gpu::Buffer> memory_;
  std::vector<gpu::LayerTensors> tensors_;
  std::vector<void*> workspaces_;
  std::unique_ptr<gpu::Graph> graph_;
  gpu::Timer timer_;
};

}  // namespace

std::unique_ptr<PreparedRuns> prepare_runs(const Case& c, const CudaOptions& options, int copies) {
  return std::make_unique<CudaPreparedRuns>(c, options, copies);
}

const std::string& cuda_unavailable_reason() {
  static const std::string kReason = gpu::device_unavailable_reason();
  return kReason;
}

std::unique_ptr<Backend> make_cuda_backend(const CudaOptions& options) {
  if (const std::string& reason = cuda_unavailable_reason(); !reason.empty()) {
    throw Error(ErrorKind::kUnsupported, "cuda: " + reason, "backend");
  }
  return std::make_unique<CudaBackend>(options);
}

#else

std::unique_ptr<PreparedRuns> prepare_runs(const Case& /*c*/, const CudaOptions& /*options*/,
                                           int /*copies*/) {
  throw Error(ErrorKind::kUnsupported, "cuda: " + cuda_unavailable_reason(), "backend");
}

const std::string& cuda_unavailable_reason() {
  static const std::string kReason = "not built in (configure with a CUDA compiler, preset cuda)";
  return kReason;
}

std::unique_ptr<Backend> make_cuda_backend(const CudaOptions& /*options*/) {
  throw Error(ErrorKind::kUnsupported, "cuda: " + cuda_unavailable_reason(), "backend");
}

#endif

}  // namespace attn::harness
