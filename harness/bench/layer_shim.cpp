// The CUDA layers behind a C interface, so that a script that holds another implementation's
// tensors (harness/bench/peers) can time both in one process, on the same memory and stream.
#include <cstring>
#include <exception>
#include <map>
#include <memory>
#include <sstream>
#include <string>

#include "gpu/kernels/attention_decode_lean.h"
#include "gpu/kernels/coded_cluster.h"
#include "gpu/kernels/coded_stream.h"
#include "gpu/layers/layer.h"
#include "reference/core/config.h"
#include "reference/core/error.h"

namespace {

struct BenchLayer {
  std::unique_ptr<attn::gpu::AttentionLayer> layer;
  attn::gpu::LayerPlan plan;
  attn::gpu::Type cache_type = attn::gpu::Type::kBFloat16;
  // One scale for all keys and one for all values of a cache of codes, on the device.
  float* k_scale = nullptr;
  float* v_scale = nullptr;
};

thread_local std::string last_error;

attn::gpu::Type gpu_type(attn::ElementType type) {
  switch (type) {
    case attn::ElementType::kFloat32:
      return attn::gpu::Type::kFloat32;
    case attn::ElementType::kFloat16:
      return attn::gpu::Type::kFloat16;
    case attn::ElementType::kBFloat16:
      return attn::gpu::Type::kBFloat16;
    case attn::ElementType::kFloat8E4M3FN:
      return attn::gpu::Type::kFloat8E4M3;
    default:
      throw attn::Error(attn::ErrorKind::kUnsupported, "the shim has no caches of this type");
  }
}

template <typename Body>
int guarded(const Body& body) {
  try {
    body();
    return 0;
  } catch (const std::exception& error) {
    last_error = error.what();
    return 1;
  }
}

attn::gpu::LayerOptions options_of(const std::string& words) {
  attn::gpu::LayerOptions options;
  std::istringstream stream(words);
  for (std::string word; std::getline(stream, word, ',');) {
    if (word == "prefill=tiled") {
      options.prefill = attn::gpu::PrefillKernel::kTiled;
    } else if (word == "prefill=hopper") {
      options.prefill = attn::gpu::PrefillKernel::kHopper;
    } else if (word == "prefill=fp8") {
      options.prefill = attn::gpu::PrefillKernel::kFp8;
    } else if (word == "projection=separate") {
      options.hopper_projection = attn::gpu::ProjectionUse::kNever;
    } else if (word == "fp8=own") {
      options.fp8 = attn::gpu::Fp8Products::kOwn;
    } else if (word == "gemv=0") {
      options.gemv = attn::gpu::GemvUse::kNever;
    } else if (word == "gemv=1") {
      options.gemv = attn::gpu::GemvUse::kFewRows;
    } else if (word == "gemv=ahead") {
      options.gemv = attn::gpu::GemvUse::kAhead;
    } else if (word == "coded=stream" || word == "coded=few" || word == "coded=cluster") {
      options.coded_clusters = attn::gpu::cluster_use(word.substr(6));
      options.coded_streams = attn::gpu::stream_use(word.substr(6));
    } else if (word == "decode=general" || word == "decode=lean" || word == "decode=lean-mail") {
      options.decode = attn::gpu::decode_way(word.substr(7));
    } else if (word == "gemm=own") {
      options.cublas = false;
    } else {
      throw attn::Error(attn::ErrorKind::kUsage, "no option \"" + word + "\" is timed here");
    }
  }
  return options;
}

}  // namespace

#define ATTN_SHIM extern "C" __attribute__((visibility("default")))

/// Device pointers and strides of one call, in the order of gpu::LayerTensors.
struct AttnShimCall {
  const void* x;
  const void* q;
  const float* freqs_cis;
  const std::uint32_t* row_offsets;
  const std::uint32_t* cache_lengths;
  void* k;
  void* v;
  const std::uint32_t* page_table;
  std::int64_t table_stride;
  std::int64_t page_size;
  std::int64_t page_stride;
  std::int64_t token_stride;
  std::int64_t head_stride;
  void* out;
  float* lse;
  void* attn_out;
  void* workspace;
};

ATTN_SHIM const char* attn_shim_error() { return last_error.c_str(); }

/// `names` and `data`: the config's weights in host memory, as a golden file stores them.
/// `words`: options of the backend cuda, "prefill=tiled,fp8=own", or nothing.
ATTN_SHIM void* attn_shim_make(const char* config_json, int count, const char** names,
                               const void** data, const char* words) {
  auto bench = std::make_unique<BenchLayer>();
  const int status = guarded([&] {
    const attn::AttentionConfig config = attn::parse_config(config_json);
    std::map<std::string, const void*> given;
    for (int i = 0; i < count; ++i) given[names[i]] = data[i];
    attn::LayerWeights weights;
    for (const attn::TensorSpec& spec : attn::expected_weights(config)) {
      const auto it = given.find(spec.name);
      if (it == given.end()) continue;
      attn::Tensor tensor(spec.types.front(), spec.shape);
      std::memcpy(tensor.data(), it->second, tensor.bytes().size());
      weights.emplace(spec.name, std::move(tensor));
    }
    bench->cache_type = gpu_type(config.kv_cache.dtype);
    const attn::gpu::LayerOptions options = options_of(words);
    bench->layer = std::make_unique<attn::gpu::AttentionLayer>(config, weights, options);
  });
  return status == 0 ? bench.release() : nullptr;
}

/// Scales of the runs that follow, of a cache with one scale for the tensor.
ATTN_SHIM void attn_shim_set_scales(void* handle, float* k_scale, float* v_scale) {
  auto* const bench = static_cast<BenchLayer*>(handle);
  bench->k_scale = k_scale;
  bench->v_scale = v_scale;
}

ATTN_SHIM void attn_shim_free(void* handle) { delete static_cast<BenchLayer*>(handle); }

/// Bytes of workspace for these lengths, -1 on failure.
ATTN_SHIM std::int64_t attn_shim_plan(void* handle, std::int64_t batch, const std::int64_t* rows,
                                      const std::int64_t* cached) {
  auto* const bench = static_cast<BenchLayer*>(handle);
  const int status = guarded([&] {
    bench->plan = bench->layer->plan({{rows, rows + batch}, {cached, cached + batch}});
  });
  return status == 0 ? static_cast<std::int64_t>(bench->plan.workspace_bytes) : -1;
}

ATTN_SHIM int attn_shim_run(void* handle, const AttnShimCall* call, void* stream) {
  return guarded([&] {
    const auto* const bench = static_cast<BenchLayer*>(handle);
    attn::gpu::LayerTensors t;
    t.x = call->x;
    t.q = call->q;
    t.freqs_cis = call->freqs_cis;
    t.row_offsets = call->row_offsets;
    t.cache_lengths = call->cache_lengths;
    t.cache.k = call->k;
    t.cache.v = call->v;
    t.cache.type = bench->cache_type;
    if (bench->k_scale != nullptr) t.cache.scales = attn::gpu::CacheScales::kTensor;
    t.cache.k_scale = bench->k_scale;
    t.cache.v_scale = bench->v_scale;
    t.cache.k_page_stride = t.cache.v_page_stride = call->page_stride;
    t.cache.k_token_stride = t.cache.v_token_stride = call->token_stride;
    t.cache.k_head_stride = t.cache.v_head_stride = call->head_stride;
    t.cache.page_table = call->page_table;
    t.cache.table_stride = call->table_stride;
    t.cache.page_size = call->page_size;
    t.out = call->out;
    t.lse = call->lse;
    t.attn_out = call->attn_out;
    bench->layer->run(bench->plan, t, call->workspace,
                      static_cast<attn::gpu::StreamHandle>(stream));
  });
}

/// q, k and v alone: call->x to call->out, [tokens, (Hq + 2 Hkv) D].
ATTN_SHIM int attn_shim_project(void* handle, const AttnShimCall* call, void* stream) {
  return guarded([&] {
    const auto* const bench = static_cast<BenchLayer*>(handle);
    attn::gpu::LayerTensors t;
    t.x = call->x;
    t.qkv = call->out;
    bench->layer->run_projection(bench->plan, t, call->workspace,
                                 static_cast<attn::gpu::StreamHandle>(stream));
  });
}
