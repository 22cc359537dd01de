#include "harness/backends/cuda/layer_backend.h"

#include <algorithm>
#include <utility>

#include "gpu/device/scratch.h"
#include "gpu/kernels/attention_decode_lean.h"
#include "gpu/kernels/coded_cluster.h"
#include "gpu/kernels/coded_stream.h"
#include "gpu/layers/types.h"
#include "harness/backends/backend_failure.h"
#include "harness/backends/cuda/case_image.h"
#include "harness/backends/execution.h"
#include "reference/core/error.h"

namespace attn::harness {

gpu::LayerOptions layer_options_of(const CudaOptions& options) {
  gpu::LayerOptions layer;
  layer.fused_head_pass = options.fused;
  layer.plain_attention = options.plain_attention;
  if (options.hopper_prefill) layer.prefill = gpu::PrefillKernel::kHopper;
  if (options.fp8_prefill) layer.prefill = gpu::PrefillKernel::kFp8;
  if (options.tiled_prefill) layer.prefill = gpu::PrefillKernel::kTiled;
  if (options.hopper_projection_always) layer.hopper_projection = gpu::ProjectionUse::kAlways;
  if (options.separate_projection) layer.hopper_projection = gpu::ProjectionUse::kNever;
  if (options.no_gemv) layer.gemv = gpu::GemvUse::kNever;
  if (options.gemv) layer.gemv = gpu::GemvUse::kFewRows;
  if (options.gemv_ahead) layer.gemv = gpu::GemvUse::kAhead;
  layer.cublas = options.cublas;
  if (options.fp8_cublas) layer.fp8 = gpu::Fp8Products::kLibrary;
  if (options.fp8_own) layer.fp8 = gpu::Fp8Products::kOwn;
  layer.coded_streams = gpu::stream_use(options.coded);
  layer.coded_clusters = gpu::cluster_use(options.coded);
  layer.decode = gpu::decode_way(options.decode);
  layer.fixed_splits = options.splits;
  return layer;
}

PaddingRows padding_rows(const AttentionConfig& config) {
  return config.starts_at_attention() ? PaddingRows::kUntouched : PaddingRows::kZero;
}

std::string CudaBackend::name() const {
  std::string words;
  if (!options_.fused) words += ",fused=0";
  if (options_.plain_attention) words += ",attention=plain";
  if (options_.hopper_prefill) words += ",prefill=hopper";
  if (options_.fp8_prefill) words += ",prefill=fp8";
  if (options_.tiled_prefill) words += ",prefill=tiled";
  if (options_.hopper_projection_always) {
    words += ",projection=hopper-always";
  } else if (options_.hopper_projection) {
    words += ",projection=hopper";
  }
  if (options_.separate_projection) words += ",projection=separate";
  if (options_.no_gemv) words += ",gemv=0";
  if (options_.gemv || options_.gemv_ahead)
    words += options_.gemv_ahead ? ",gemv=ahead" : ",gemv=1";
  if (!options_.cublas) words += ",gemm=own";
  if (options_.fp8_own) words += ",fp8=own";
  if (options_.fp8_cublas) words += ",fp8=cublaslt";
  if (!options_.coded.empty()) words += ",coded=" + options_.coded;
  if (!options_.decode.empty()) words += ",decode=" + options_.decode;
  if (options_.splits > 0) words += ",splits=" + std::to_string(options_.splits);
  if (!words.empty()) words[0] = ':';
  return "cuda" + words;
}

std::string CudaBackend::unsupported_reason(const AttentionConfig& config) const {
  std::string reason = gpu::unsupported_reason(config);
  if (reason.empty() && (options_.hopper_prefill || options_.fp8_prefill)) {
    reason = gpu::hopper_unsupported_reason(config, layer_options());
  }
  if (reason.empty() && (options_.hopper_projection || options_.hopper_projection_always)) {
    reason = gpu::projection_unsupported_reason(config, layer_options());
  }
  return reason;
}

namespace {

/// What the tensor-core kernels multiply values with.
ElementType probability_type(const AttentionConfig& config) {
  const gpu::Type type =
      gpu::probability_type(gpu::type_of(config.dtype), gpu::type_of(config.kv_cache.dtype),
                            cache_scales(config.kv_cache.scale_granularity));
  return type == gpu::Type::kBFloat16 ? ElementType::kBFloat16 : ElementType::kFloat16;
}

}  // namespace

Arithmetic CudaBackend::arithmetic(const AttentionConfig& config) const {
  Arithmetic a;
  a.store = a.out = config.dtype;
  a.cache = config.kv_cache.dtype;
  a.deterministic = true;
  const bool float32_products =
      config.quant ? !gpu::uses_coded_products(config) : config.dtype == ElementType::kFloat32;
  if (!float32_products) a.projection_acc = Accumulator::kFloat32TensorCore;
  // Of calls of more rows; which a case is, is not asked here.
  if (gpu::sums_in_fp8_accumulators(config, layer_options())) {
    a.projection_acc = Accumulator::kFp8_14BitPromoted128;
  }
  // gptq's weights are made in the type of the activations, as its layer makes them.
  a.native_weights = config.quant && config.quant->q_proj == QuantEncoding::kGptq;
  a.exp_rel = 0x1p-22;
  a.block = gpu::kPlainBlock;
  if (!gpu::uses_tensor_cores(config, layer_options())) return a;
  a.attention_acc = Accumulator::kFloat32TensorCore;
  a.probabilities = probability_type(config);
  a.block = gpu::kTensorCoreBlock;
  // The warps of the decode kernel are parts too. How many splits a case gets depends on its
  // lengths; the declaration is for all of them.
  if (options_.fp8_prefill) {
    // Of calls of more rows than decode: the others are what they were, which the bound holds too.
    a.attention_acc = Accumulator::kFp8_14Bit;
    a.probabilities = ElementType::kFloat8E4M3FN;
    a.probability_scale = gpu::kFp8ProbabilityScale;
    a.e4m3_queries = true;
  }
  a.splits = (options_.splits > 0 ? options_.splits : gpu::kMostSplits) + gpu::kMostDecodeWarps;
  return a;
}

std::unique_ptr<CudaBackend::Context> CudaBackend::take_context() const {
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

/// Calls of one layer on one stream, in the same memory one after the other.
class CudaBackend::Calls {
 public:
  Calls(const CudaBackend& backend, const Case& c)
      : backend_(backend),
        layer_(c.config, c.weights, backend.layer_options()),
        context_(backend.take_context()) {}
  ~Calls() {
    try {
      if (context_ != nullptr) context_->stream.synchronize();
      backend_.give_back(std::move(context_));
    } catch (...) {  // a device that fails keeps no context
    }
  }
  Calls(const Calls&) = delete;
  Calls& operator=(const Calls&) = delete;

  /// A case in its buffers.
  struct Call {
    const Case* c = nullptr;
    gpu::LayerPlan plan;
    CaseImage m;
  };
  Call prepare(const Case& c, const gpu::BatchShape& shape, const Capacity& room) {
    Call call;
    call.c = &c;
    call.plan = layer_.plan(shape);
    call.m = lay_out(c, layer_, call.plan, room);
    reserve(call.m.image.size());
    return call;
  }
  Call prepare(const Case& c) { return prepare(c, shape_of(c), capacity_of(c)); }

  void upload(Call& call) { call.m.image.upload(memory(), stream()); }
  void upload_again(Call& call) { call.m.image.upload_again(memory(), stream()); }
  void launch(Call& call, gpu::StreamHandle stream) {
    layer_.run(call.plan, tensors_of(*call.c, call.m), call.m.image.at<void>(call.m.workspace),
               stream);
  }
  void launch(Call& call) { launch(call, stream()); }
  /// Waits, checks what must not have changed, and reads.
  Trace finish(Call& call) {
    call.m.image.download(context_->stream);
    call.m.image.check();
    check_padding(call);
    return read_trace(*call.c, call.m, layer_.qkv_width());
  }

  Trace repeat(const Case& c);
  Trace second_call(const Case& c, const Case& other);
  Trace dirty_scratch(const Case& c);
  Trace graph(const Case& c);
  Trace graph_replay(const Case& c, const Case& other);
  Trace padded(const Case& c);

 private:
  std::byte* memory() const { return context_->memory.data(); }
  gpu::StreamHandle stream() const { return context_->stream.get(); }
  /// Room for an image. Before the first upload only: what lies there is lost.
  void reserve(std::size_t bytes) {
#ifdef ATTN_FAULTY
    bytes +=
        std::size_t{64} << 20;  // a bug that reads or writes past the image must not end the run
#endif
    if (context_->memory.size() >= bytes) return;
    context_->memory = gpu::Buffer();  // before the larger one is asked for
    context_->memory = gpu::Buffer(bytes);
  }
  /// Captures the call and launches the graph with what `judged` uploads.
  Trace replay(Call& captured, Call& judged);
  void check_padding(const Call& call) const;

  const CudaBackend& backend_;
  gpu::AttentionLayer layer_;
  std::unique_ptr<Context> context_;
};

/// Rows of results that no sequence of the case owns hold what is declared.
void CudaBackend::Calls::check_padding(const Call& call) const {
  const AttentionConfig& config = call.c->config;
  if (config.entry_point == EntryPoint::kMaterializeKvFromHidden) return;
  const std::int64_t first = call.c->tokens();
  const std::int64_t rows = call.m.room.tokens - first;
  const auto check = [&](const char* name, std::size_t offset, ElementType type,
                         std::int64_t width) {
    const std::size_t row = static_cast<std::size_t>(width) * element_size(type);
    const std::byte* const begin =
        call.m.image.result(offset) + static_cast<std::size_t>(first) * row;
    const std::string mistake =
        padding_mistake(padding_rows(config), type, first, width,
                        {begin, static_cast<std::size_t>(rows) * row}, DeviceImage::kPoison);
    if (!mistake.empty()) {
      throw BackendFailure(Status::kFailed, std::string(name) + ": " + mistake);
    }
  };
  if (config.starts_at_attention()) {
    check("attn_out", call.m.attn_out, config.dtype, config.attn_width());
    check("lse", call.m.lse, ElementType::kFloat32, config.num_attention_heads);
  } else {
    check("out", call.m.out, config.dtype, config.hidden_size);
  }
}

Trace CudaBackend::Calls::repeat(const Case& c) {
  Call call = prepare(c);
  upload(call);
  launch(call);
  const Trace first = finish(call);
  upload_again(call);
  launch(call);
  Trace second = finish(call);
  if (const std::string stage = first_difference(first, second); !stage.empty()) {
    throw BackendFailure(Status::kFailed,
                         stage + " differs between two equal calls; declared: deterministic");
  }
  return second;
}

/// The same layer, another case first: what lies in the workspace then is the first call's.
Trace CudaBackend::Calls::second_call(const Case& c, const Case& other) {
  Call second = prepare(c);
  Call first = prepare(other);  // may move the memory, in which nothing lies yet
  upload(first);
  launch(first);
  context_->stream.synchronize();
  upload_again(second);
  launch(second);
  return finish(second);
}

Trace CudaBackend::Calls::dirty_scratch(const Case& c) {
  const Case nan = with_nan_inputs(c);
  Call call = prepare(c);
  Call first = prepare(nan);
  upload(first);
  launch(first);
  upload_again(call);
  gpu::dirty_scratch(context_->stream);
  launch(call);
  return finish(call);
}

Trace CudaBackend::Calls::replay(Call& captured, Call& judged) {
  if (captured.m.image.size() != judged.m.image.size()) {
    throw Error(ErrorKind::kInternal, "cuda: the captured case and the judged one lie differently");
  }
  upload(captured);
  launch(captured);  // loads the kernels
  context_->stream.synchronize();
  const gpu::Graph graph(context_->stream,
                         [&](gpu::StreamHandle stream) { launch(captured, stream); });
  upload_again(judged);
  graph.launch(stream());
  return finish(judged);
}

Trace CudaBackend::Calls::graph(const Case& c) {
  Call call = prepare(c);
  return replay(call, call);
}

Trace CudaBackend::Calls::graph_replay(const Case& c, const Case& other) {
  const gpu::BatchShape shape = longer(shape_of(c), shape_of(other));
  Capacity room = larger(capacity_of(c), capacity_of(other));
  room.tokens = shape.tokens();  // the longer of each sequence may be of different cases
  Call judged = prepare(c, shape, room);
  Call captured = prepare(other, shape, room);
  return replay(captured, judged);
}

Trace CudaBackend::Calls::padded(const Case& c) {
  gpu::BatchShape shape = shape_of(c);
  Capacity room = capacity_of(c);
  // Planned as a bucket of sequences with a row each, of which some then have none.
  const std::int64_t bucket = padded_batch(c.batch());
  while (std::ssize(shape.rows) < bucket) {
    shape.rows.push_back(1);
    shape.cached.push_back(c.config.starts_at_attention() ? 1 : 0);
  }
  room.batch = bucket;
  room.tokens = shape.tokens();
  Call call = prepare(c, shape, room);
  upload(call);
  launch(call);
  return finish(call);
}

Trace CudaBackend::run(const Case& c, std::span<const Stage> /*wanted*/) const {
  Calls calls(*this, c);
  Calls::Call call = calls.prepare(c);
  calls.upload(call);
  calls.launch(call);
  return calls.finish(call);
}

std::optional<Trace> CudaBackend::run_as(ExecMode mode, const Case& c, const Case* other,
                                         std::span<const Stage> wanted) const {
  if (mode == ExecMode::kPlain) return run(c, wanted);
  Calls calls(*this, c);
  switch (mode) {
    case ExecMode::kPlain:
      break;
    case ExecMode::kSecondCall:
      return calls.second_call(c, *other);
    case ExecMode::kDirtyScratch:
      return calls.dirty_scratch(c);
    case ExecMode::kRepeat:
      return calls.repeat(c);
    case ExecMode::kGraph:
      return calls.graph(c);
    case ExecMode::kGraphReplay:
      return calls.graph_replay(c, *other);
    case ExecMode::kPadded:
      return calls.padded(c);
  }
  return std::nullopt;
}

}  // namespace attn::harness
