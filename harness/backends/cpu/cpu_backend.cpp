#include "harness/backends/cpu/cpu_backend.h"

#include <algorithm>
#include <string>
#include <thread>
#include <vector>

#include "harness/backends/cpu/activations.h"
#include "harness/backends/cpu/cache_rows.h"
#include "harness/backends/cpu/device_split.h"
#include "harness/backends/cpu/exp.h"
#include "harness/backends/cpu/rope.h"
#include "harness/backends/cpu/simd.h"

namespace attn::harness::cpu {
namespace {

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

std::string CpuBackend::unsupported_reason(const AttentionConfig&) const { return ""; }

Arithmetic CpuBackend::arithmetic(const AttentionConfig& config) const {
  Arithmetic a;  // float32 everywhere: tables, norm, decoded numbers and sums over devices
  a.cache = config.kv_cache.dtype;
  a.lanes = kLanes;
  a.exp_rel = kExpRelativeError;
  a.block = options_.block;
  a.deterministic = true;
  a.batch_invariant = true;  // every row is summed by itself, in blocks that start at key 0
  return a;
}

/// One part of the cache after the call as float32, sequence after sequence in logical order.
Tensor read_back(const Case& c, const KvCache& cache, CachePart part) {
  const Stage stage = part == CachePart::kKeys ? Stage::kCacheK : Stage::kCacheV;
  Tensor values(ElementType::kFloat32, stage_shape(c, stage));
  float* head = values.as<float>();
  for (std::int64_t b = 0; b < c.batch(); ++b) {
    for (std::int64_t p = 0; p < c.key_count(b); ++p) {
      for (std::int64_t h = 0; h < values.dim(1); ++h, head += values.dim(2)) {
        load_head(cache, part, b, p, h, head);
      }
    }
  }
  return values;
}

Tensor rope_table(const Case& c) {
  const std::vector<float> table =
      make_rope_table(c.config.rope, c.config.rotary_dim(), c.freqs_cis.dim(0));
  Tensor result(ElementType::kFloat32, stage_shape(c, Stage::kFreqsCis));
  std::ranges::copy(table, result.as<float>());
  return result;
}

Trace CpuBackend::run(const Case& c, std::span<const Stage> wanted) const {
  const auto is_wanted = [&](Stage s) { return std::ranges::find(wanted, s) != wanted.end(); };
  Trace trace = run_on_devices(c, options_);
  if (!c.config.starts_at_attention() && is_wanted(Stage::kFreqsCis)) {
    trace[Stage::kFreqsCis] = rope_table(c);
  }
  if (is_wanted(Stage::kCacheK) || is_wanted(Stage::kCacheV)) {
    trace[Stage::kCacheK] = read_back(c, *trace.cache, CachePart::kKeys);
    trace[Stage::kCacheV] = read_back(c, *trace.cache, CachePart::kValues);
  }
  return trace;
}

}  // namespace

std::unique_ptr<Backend> make_cpu_backend(const CpuOptions& options) {
  return std::make_unique<CpuBackend>(options);
}

}  // namespace attn::harness::cpu
