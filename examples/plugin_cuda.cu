// A plug-in that wraps a CUDA attention kernel: tensors come in host memory, the kernel reads them
// through their strides from copies on the device.
//   nvcc -shared -Xcompiler -fPIC -O3 -I harness/backends examples/plugin_cuda.cu -o cuda.so
//   attn-compare verify data/golden --backend ./cuda.so --allow-unsupported
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdio>

#include "attn_plugin.h"

namespace {

constexpr int kWarp = 32;
constexpr int kMaxPerLane = 8;  // head_dim up to 256

// A tensor as the kernel sees it: the pointer and up to three strides.
template <typename T>
struct View {
  T *data;
  int64_t s0, s1, s2;
  __device__ T *at(int64_t i, int64_t j, int64_t k) const {
    return data + i * s0 + j * s1 + k * s2;
  }
};

struct Arguments {
  View<const uint32_t> row_offsets, key_lengths, page_table;
  View<const float> sinks;
  View<float> lse;
  int batch, heads, group, head_dim, head_dim_v, page_size;
  int mask, top_left;
  long long window, chunk;
  float scale, softcap;
};

__device__ float warp_sum(float x) {
  for (int lane = kWarp / 2; lane > 0; lane /= 2) x += __shfl_xor_sync(0xffffffffu, x, lane);
  return x;
}

// Keys [begin, end) that the query at `position` sees.
__device__ void visible(const Arguments &a, long long position, long long keys, long long *begin,
                        long long *end) {
  *begin = 0;
  *end = keys;
  if (a.mask == ATTN_MASK_NULL) return;
  if (a.mask != ATTN_MASK_SLIDING_WINDOW_NONCAUSAL) *end = min(keys, position + 1);
  if (a.mask == ATTN_MASK_CHUNKED_CAUSAL) *begin = max(position, 0LL) / a.chunk * a.chunk;
  if (a.window > 0) *begin = max(0LL, position - a.window + 1);
}

// One warp for each query row and head, one key at a time, the softmax rescaled as it goes.
template <typename T, typename KV>
__global__ void attention(Arguments a, View<const T> q, View<const KV> k, View<const KV> v,
                          View<T> out) {
  const int64_t row = blockIdx.x;
  const int head = blockIdx.y, lane = threadIdx.x;
  int b = 0;
  while (row >= *a.row_offsets.at(b + 1, 0, 0)) ++b;
  const long long first = *a.row_offsets.at(b, 0, 0), rows = *a.row_offsets.at(b + 1, 0, 0) - first;
  const long long keys = *a.key_lengths.at(b, 0, 0);
  const long long position = a.top_left ? row - first : keys - rows + row - first;
  long long begin, end;
  visible(a, position, keys, &begin, &end);

  float query[kMaxPerLane], sum_v[kMaxPerLane] = {};
  for (int i = 0; i < kMaxPerLane; ++i) {
    const int d = lane + i * kWarp;
    query[i] = d < a.head_dim ? float(*q.at(row, head, d)) : 0.0f;
  }
  float largest = a.sinks.data != nullptr ? *a.sinks.at(head, 0, 0) : -INFINITY;
  float sum = a.sinks.data != nullptr ? 1.0f : 0.0f;
  for (long long p = begin; p < end; ++p) {
    const int64_t page = *a.page_table.at(b, p / a.page_size, 0), slot = p % a.page_size;
    float score = 0.0f;
    for (int i = 0; i < kMaxPerLane; ++i) {
      const int d = lane + i * kWarp;
      if (d < a.head_dim) score += query[i] * float(k.at(page, slot, head / a.group)[d]);
    }
    score = warp_sum(score) * a.scale;
    if (a.softcap > 0.0f) score = a.softcap * tanhf(score / a.softcap);
    const float top = fmaxf(largest, score);
    const float before = expf(largest - top), weight = expf(score - top);
    largest = top;
    sum = sum * before + weight;
    for (int i = 0; i < kMaxPerLane; ++i) {
      const int d = lane + i * kWarp;
      const float value = d < a.head_dim_v ? float(v.at(page, slot, head / a.group)[d]) : 0.0f;
      sum_v[i] = sum_v[i] * before + weight * value;
    }
  }
  for (int i = 0; i < kMaxPerLane; ++i) {
    const int d = lane + i * kWarp;
    if (d < a.head_dim_v) *out.at(row, head, d) = T(sum > 0.0f ? sum_v[i] / sum : 0.0f);
  }
  if (lane == 0) *a.lse.at(row, head, 0) = sum > 0.0f ? largest + logf(sum) : -INFINITY;
}

// ---- the host side ------------------------------------------------------------------------------

bool is_type(attn_dtype t, int code, int bits) { return t.code == code && t.bits == bits; }
bool is_float(attn_dtype t) { return is_type(t, 2, 32) || is_type(t, 2, 16) || is_type(t, 4, 16); }

// A copy of a tensor on the device, from its first element to its last.
class DeviceTensor {
 public:
  DeviceTensor(const attn_tensor *t, cudaStream_t stream) : tensor_(t), stream_(stream) {
    if (t == nullptr) return;
    int64_t last = 0;
    for (int i = 0; i < t->ndim; ++i) {
      if (t->shape[i] == 0) return;
      last += (t->shape[i] - 1) * t->strides[i];
    }
    bytes_ = size_t(last + 1) * t->dtype.bits / 8;
    status = cudaMalloc(&data_, bytes_);
    if (status != cudaSuccess) return;
    status = cudaMemcpyAsync(data_, attn_data(t), bytes_, cudaMemcpyHostToDevice, stream);
  }
  ~DeviceTensor() { cudaFree(data_); }
  DeviceTensor(const DeviceTensor &) = delete;
  DeviceTensor &operator=(const DeviceTensor &) = delete;

  template <typename T>
  View<T> view() const {
    const auto stride = [&](int i) { return tensor_ && i < tensor_->ndim ? tensor_->strides[i] : 0; };
    return {static_cast<T *>(data_), stride(0), stride(1), stride(2)};
  }
  cudaError_t copy_back() const {
    if (bytes_ == 0) return cudaSuccess;
    return cudaMemcpyAsync(attn_data(tensor_), data_, bytes_, cudaMemcpyDeviceToHost, stream_);
  }

  cudaError_t status = cudaSuccess;

 private:
  const attn_tensor *tensor_;
  cudaStream_t stream_;
  void *data_ = nullptr;
  size_t bytes_ = 0;
};

int fail(char *message, const char *what, cudaError_t status) {
  std::snprintf(message, ATTN_MESSAGE_SIZE, "%s: %s", what, cudaGetErrorString(status));
  return ATTN_ERROR;
}

int create(const char *, void **, char *message) {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  return status == cudaSuccess ? ATTN_OK : fail(message, "no CUDA device", status);
}

int query(void *, const attn_config *c, attn_capability *capability, char *message) {
  const char *no = !is_float(c->dtype) || !is_float(c->cache_dtype) ? "float32, float16, bfloat16"
                   : c->mask == ATTN_MASK_TENSOR                    ? "no mask tensors"
                   : c->head_dim > 256 || c->head_dim_v > 256       ? "head_dim up to 256"
                                                                    : nullptr;
  if (no != nullptr) std::snprintf(message, ATTN_MESSAGE_SIZE, "%s", no);
  if (no != nullptr) return ATTN_UNSUPPORTED;
  capability->out = c->dtype;
  capability->accumulator = ATTN_ACC_FLOAT32;
  capability->block = 1;           // keys for each rescaling of the softmax
  capability->lanes = kWarp;       // partial sums of a dot product
  capability->exp_rel = 0x1p-22;   // expf of CUDA: 2 ulp
  capability->claims = ATTN_CLAIM_DETERMINISTIC | ATTN_CLAIM_BATCH_INVARIANT;
  return ATTN_OK;
}

template <typename T, typename KV>
void launch(const attn_call &c, const Arguments &a, const DeviceTensor &q, const DeviceTensor &k,
            const DeviceTensor &v, const DeviceTensor &out) {
  const dim3 grid(unsigned(c.tokens), unsigned(a.heads));
  attention<T, KV><<<grid, kWarp, 0, static_cast<cudaStream_t>(c.stream)>>>(
      a, q.view<const T>(), k.view<const KV>(), v.view<const KV>(), out.view<T>());
}

template <typename T>
void launch(const attn_call &c, const Arguments &a, const DeviceTensor &q, const DeviceTensor &k,
            const DeviceTensor &v, const DeviceTensor &out) {
  const attn_dtype cache = c.config->cache_dtype;
  if (cache.bits == 32) return launch<T, float>(c, a, q, k, v, out);
  if (cache.code == 4) return launch<T, __nv_bfloat16>(c, a, q, k, v, out);
  launch<T, __half>(c, a, q, k, v, out);
}

int run(void *, void *, const attn_call *c, char *message) {
  const attn_config &f = *c->config;
  if (c->tokens == 0) return ATTN_OK;
  const auto stream = static_cast<cudaStream_t>(c->stream);
  const DeviceTensor q(c->q, stream), k(c->k_cache, stream), v(c->v_cache, stream),
      pages(c->page_table, stream), offsets(c->row_offsets, stream), lengths(c->key_lengths, stream),
      sinks(c->sinks, stream), out(c->attn_out, stream), lse(c->lse, stream);
  for (const DeviceTensor *t : {&q, &k, &v, &pages, &offsets, &lengths, &sinks, &out, &lse}) {
    if (t->status != cudaSuccess) return fail(message, "copying to the device", t->status);
  }
  if (c->sinks != nullptr && c->sinks->dtype.bits != 32) {
    std::snprintf(message, ATTN_MESSAGE_SIZE, "sinks only in float32");
    return ATTN_UNSUPPORTED;
  }
  const Arguments a = {offsets.view<const uint32_t>(),
                       lengths.view<const uint32_t>(),
                       pages.view<const uint32_t>(),
                       sinks.view<const float>(),
                       lse.view<float>(),
                       int(c->batch),
                       int(f.num_heads),
                       int(f.num_heads / f.num_kv_heads),
                       int(f.head_dim),
                       int(f.head_dim_v),
                       int(f.page_size),
                       f.mask,
                       f.mask_align == ATTN_ALIGN_TOP_LEFT,
                       f.window_size,
                       f.chunk_size,
                       float(f.scale),
                       float(f.softcap)};
  if (f.dtype.bits == 32) {
    launch<float>(*c, a, q, k, v, out);
  } else if (f.dtype.code == 4) {
    launch<__nv_bfloat16>(*c, a, q, k, v, out);
  } else {
    launch<__half>(*c, a, q, k, v, out);
  }
  cudaError_t status = cudaGetLastError();
  if (status == cudaSuccess) status = out.copy_back();
  if (status == cudaSuccess) status = lse.copy_back();
  if (status == cudaSuccess) status = cudaStreamSynchronize(stream);
  return status == cudaSuccess ? ATTN_OK : fail(message, "the kernel", status);
}

}  // namespace

extern "C" const attn_plugin *attn_plugin_entry(void) {
  static const attn_plugin plugin = {ATTN_PLUGIN_VERSION, "cuda-example", "one warp a row and head",
                                     create,              nullptr,        query,
                                     nullptr,             run,            nullptr};
  return &plugin;
}
