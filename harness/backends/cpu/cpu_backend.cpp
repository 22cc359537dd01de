#include "harness/backends/cpu/cpu_backend.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <thread>
#include <vector>

#include "harness/backends/cpu/attend.h"
#include "harness/backends/cpu/exp.h"
#include "harness/backends/cpu/parallel.h"
#include "harness/backends/cpu/projection.h"
#include "harness/backends/cpu/rope.h"
#include "harness/backends/cpu/simd.h"
#include "harness/backends/cpu/unpack.h"
#include "reference/core/error.h"

namespace attn::harness::cpu {
namespace {

float* new_stage(const Case& c, Stage stage, Trace& trace) {
  trace[stage] = Tensor(ElementType::kFloat32, stage_shape(c, stage));
  return trace[stage].as<float>();
}

const float* floats(const Trace& trace, Stage stage) { return trace[stage].as<float>(); }

/// The weight of a projection and the rows of it that belong to `name` ("q", "k" or "v").
Projection input_projection(const Case& c, char name, std::int64_t first_of_stacked,
                            std::int64_t count) {
  Projection p;
  p.count = count;
  p.weight_clip = c.config.weight_clip();
  p.activation_clip = c.config.clip_activations;
  const std::string prefix = std::string(1, name) + "_proj";
  if (c.weights.count("qkv_proj.weight") != 0) {
    p.weight = &c.weights.at("qkv_proj.weight");
    p.first = first_of_stacked;
  } else {
    p.weight = &c.weights.at(prefix + ".weight");
  }
  if (c.config.has_bias) p.bias = &c.weights.at(prefix + ".bias");
  return p;
}

/// y = x / sqrt(mean(x^2) + eps) * gamma over one head.
void normalise_head(const float* x, const std::vector<float>& gamma, float eps, float* y) {
  float sum = 0.0f;
  for (std::size_t d = 0; d < gamma.size(); ++d) sum += x[d] * x[d];
  const float inverse = 1.0f / std::sqrt(sum / static_cast<float>(gamma.size()) + eps);
  for (std::size_t d = 0; d < gamma.size(); ++d) y[d] = x[d] * inverse * gamma[d];
}

/// What happens to q or k between its projection and its use: norm, then rotation.
struct HeadPath {
  Stage projected, normalised, rotated;
  std::string gamma;
  std::int64_t heads;
};

class CpuBackend final : public Backend {
 public:
  explicit CpuBackend(const CpuOptions& options)
      : options_{options.block,
                 options.threads > 0
                     ? options.threads
                     : static_cast<int>(std::max(1u, std::thread::hardware_concurrency()))},
        name_(spec_of(options)) {}

  std::string name() const override { return name_; }
  std::string unsupported_reason(const AttentionConfig& config) const override;
  Arithmetic arithmetic(const AttentionConfig& config) const override;
  Trace run(const Case& c, std::span<const Stage> wanted) const override;

 private:
  static std::string spec_of(const CpuOptions& options);
  void project_inputs(const Case& c, Trace& trace) const;
  void prepare_heads(const Case& c, const HeadPath& path, Trace& trace) const;
  void store_keys_and_values(const Case& c, Trace& trace) const;
  void project_output(const Case& c, Trace& trace) const;

  AttendOptions options_;
  std::string name_;
};

std::string CpuBackend::spec_of(const CpuOptions& options) {
  const CpuOptions defaults;
  std::string words;
  if (options.block != defaults.block) words += ",block=" + std::to_string(options.block);
  if (options.threads != defaults.threads) words += ",threads=" + std::to_string(options.threads);
  if (!words.empty()) words[0] = ':';
  return "cpu" + words;
}

std::string CpuBackend::unsupported_reason(const AttentionConfig& config) const {
  if (config.quant) return "quantised weights (config.quant) are not implemented";
  if (!is_plain_float(config.dtype)) {
    return "activations in " + std::string(element_name(config.dtype)) + " are not implemented";
  }
  if (!is_plain_float(config.kv_cache.dtype)) {
    return "a cache in " + std::string(element_name(config.kv_cache.dtype)) + " is not implemented";
  }
  return "";
}

Arithmetic CpuBackend::arithmetic(const AttentionConfig& config) const {
  Arithmetic a;  // float32 everywhere, tables and norm included
  a.cache = config.kv_cache.dtype;
  a.lanes = kLanes;
  a.exp_rel = kExpRelativeError;
  a.block = options_.block;
  return a;
}

void CpuBackend::project_inputs(const Case& c, Trace& trace) const {
  const AttentionConfig& config = c.config;
  const Rows x = unpack_rows(c.x, 0, c.tokens(), config.hidden_size);
  const std::int64_t q = config.q_width();
  const std::int64_t k = config.k_width();
  if (config.entry_point == EntryPoint::kForward) {
    project(x, input_projection(c, 'q', 0, q), options_.threads,
            new_stage(c, Stage::kQProj, trace));
  }
  project(x, input_projection(c, 'k', q, k), options_.threads, new_stage(c, Stage::kKProj, trace));
  project(x, input_projection(c, 'v', q + k, config.v_width()), options_.threads,
          new_stage(c, Stage::kVProj, trace));
}

void CpuBackend::prepare_heads(const Case& c, const HeadPath& path, Trace& trace) const {
  const AttentionConfig& config = c.config;
  const std::int64_t d = config.head_dim;
  const std::int64_t width = path.heads * d;
  const float* source = floats(trace, path.projected);
  std::vector<float> gamma;
  float* normalised = nullptr;
  if (config.use_qk_norm) {
    gamma = unpack_vector(c.weights.at(path.gamma));
    normalised = new_stage(c, path.normalised, trace);
  }
  float* const rotated = new_stage(c, path.rotated, trace);
  const auto eps = static_cast<float>(config.rms_norm_eps);
  for (std::int64_t b = 0; b < c.batch(); ++b) {
    for (std::int64_t i = 0; i < c.row_count(b); ++i) {
      const std::int64_t row = (c.row_begin(b) + i) * width;
      const float* const angles = c.freqs_cis.as<float>() + (c.cached(b) + i) * config.rotary_dim();
      for (std::int64_t at = row; at < row + width; at += d) {
        const float* head = source + at;
        if (normalised != nullptr) {
          normalise_head(head, gamma, eps, normalised + at);
          head = normalised + at;
        }
        rotate_head(config.rope, config.rotary_dim(), d, angles, head, rotated + at);
      }
    }
  }
}

void CpuBackend::store_keys_and_values(const Case& c, Trace& trace) const {
  KvCache& cache = *trace.cache;
  const ElementType type = cache.k.type();
  const auto bytes = static_cast<std::int64_t>(element_size(type));
  const std::int64_t k_width = c.config.k_width();
  const std::int64_t v_width = c.config.v_width();
  for (std::int64_t b = 0; b < c.batch(); ++b) {
    for (std::int64_t i = 0; i < c.row_count(b); ++i) {
      const std::int64_t row = c.row_begin(b) + i;
      const std::int64_t position = c.cached(b) + i;
      pack(type, floats(trace, Stage::kKRope) + row * k_width, k_width,
           cache.k.data() + cache.k_index(b, position) * bytes);
      pack(type, floats(trace, Stage::kVProj) + row * v_width, v_width,
           cache.v.data() + cache.v_index(b, position) * bytes);
    }
  }
}

void CpuBackend::project_output(const Case& c, Trace& trace) const {
  Rows attended(c.tokens(), c.config.attn_width());
  for (std::int64_t t = 0; t < attended.count; ++t) {
    const float* const row = floats(trace, Stage::kAttnOut) + t * attended.width;
    std::copy(row, row + attended.width, attended.row(t));
  }
  Projection p;
  p.weight = &c.weights.at("o_proj.weight");
  p.count = c.config.hidden_size;
  project(attended, p, options_.threads, new_stage(c, Stage::kOut, trace));
}

/// The cache after the call as float32, sequence after sequence in logical order.
void read_cache_back(const Case& c, Trace& trace) {
  const KvCache& cache = *trace.cache;
  const ElementType type = cache.k.type();
  const auto bytes = static_cast<std::int64_t>(element_size(type));
  const std::int64_t k_width = c.config.k_width();
  const std::int64_t v_width = c.config.v_width();
  float* k = new_stage(c, Stage::kCacheK, trace);
  float* v = new_stage(c, Stage::kCacheV, trace);
  for (std::int64_t b = 0; b < c.batch(); ++b) {
    for (std::int64_t p = 0; p < c.key_count(b); ++p, k += k_width, v += v_width) {
      unpack(type, cache.k.data() + cache.k_index(b, p) * bytes, k_width, k);
      unpack(type, cache.v.data() + cache.v_index(b, p) * bytes, v_width, v);
    }
  }
}

Trace CpuBackend::run(const Case& c, std::span<const Stage> wanted) const {
  if (const std::string reason = unsupported_reason(c.config); !reason.empty()) {
    throw Error(ErrorKind::kUnsupported, "cpu: " + reason);
  }
  const AttentionConfig& config = c.config;
  const auto is_wanted = [&](Stage s) { return std::ranges::find(wanted, s) != wanted.end(); };
  Trace trace;
  trace.cache = c.cache;
  std::vector<float> given_q;
  const float* q = nullptr;
  if (config.starts_at_attention()) {
    given_q = unpack_vector(c.q);
    q = given_q.data();
  } else {
    if (is_wanted(Stage::kFreqsCis)) {
      const std::vector<float> table =
          make_rope_table(config.rope, config.rotary_dim(), c.freqs_cis.dim(0));
      std::ranges::copy(table, new_stage(c, Stage::kFreqsCis, trace));
    }
    project_inputs(c, trace);
    prepare_heads(
        c,
        {Stage::kKProj, Stage::kKNorm, Stage::kKRope, "k_norm.weight", config.num_key_value_heads},
        trace);
    store_keys_and_values(c, trace);
  }
  if (is_wanted(Stage::kCacheK) || is_wanted(Stage::kCacheV)) read_cache_back(c, trace);
  if (config.entry_point == EntryPoint::kMaterializeKvFromHidden) return trace;
  if (config.entry_point == EntryPoint::kForward) {
    prepare_heads(
        c,
        {Stage::kQProj, Stage::kQNorm, Stage::kQRope, "q_norm.weight", config.num_attention_heads},
        trace);
    q = floats(trace, Stage::kQRope);
  }
  float* const lse = new_stage(c, Stage::kLse, trace);
  attend(c, *trace.cache, q, options_, lse, new_stage(c, Stage::kAttnOut, trace));
  if (config.entry_point == EntryPoint::kForward) project_output(c, trace);
  return trace;
}

}  // namespace

std::unique_ptr<Backend> make_cpu_backend(const CpuOptions& options) {
  return std::make_unique<CpuBackend>(options);
}

}  // namespace attn::harness::cpu
