#include "reference/core/trace.h"

#include <string>

#include "reference/core/error.h"

namespace attn {
namespace {

constexpr std::array<Stage, kNumStages> kStages{
    Stage::kFreqsCis, Stage::kQProj,   Stage::kKProj, Stage::kVProj,  Stage::kQNorm,
    Stage::kKNorm,    Stage::kQRope,   Stage::kKRope, Stage::kCacheK, Stage::kCacheV,
    Stage::kLse,      Stage::kAttnOut, Stage::kOut};

constexpr std::array<std::string_view, kNumStages> kNames{
    "freqs_cis", "q_proj",  "k_proj",  "v_proj", "q_norm",   "k_norm", "q_rope",
    "k_rope",    "cache_k", "cache_v", "lse",    "attn_out", "out"};

/// Which stages an entry point goes through.
bool produces(const AttentionConfig& config, Stage stage) {
  const bool cache_only = config.entry_point == EntryPoint::kMaterializeKvFromHidden;
  switch (stage) {
    case Stage::kLse:
    case Stage::kAttnOut:
      return !cache_only;
    case Stage::kQNorm:
      return config.use_qk_norm && config.entry_point == EntryPoint::kForward;
    case Stage::kKNorm:
      return config.use_qk_norm && !config.starts_at_attention();
    case Stage::kQProj:
    case Stage::kQRope:
    case Stage::kOut:
      return config.entry_point == EntryPoint::kForward;
    default:
      return !config.starts_at_attention();
  }
}

/// The pool's rows of the case's sequences in logical order, decoded and scaled.
Tensor logical(const Case& c, const KvCache& cache, const Tensor& pool, const Tensor& scale) {
  const std::int64_t heads = pool.dim(3);
  const std::int64_t width = pool.dim(4);
  Tensor dense(ElementType::kFloat64, {c.total_keys(), heads, width});
  double* row = dense.as<double>();
  for (std::int64_t b = 0; b < c.batch(); ++b) {
    for (std::int64_t p = 0; p < c.key_count(b); ++p, row += heads * width) {
      const std::int64_t slot = cache.slot(b, p);
      pool.values(slot * heads * width,
                  std::span<double>(row, static_cast<std::size_t>(heads * width)));
      for (std::int64_t h = 0; h < heads && !scale.empty(); ++h) {
        const double s = scale.value(cache.scale_index(scale, slot, h));
        for (std::int64_t d = 0; d < width; ++d) row[h * width + d] *= s;
      }
    }
  }
  return dense;
}

}  // namespace

std::string_view name_of(Stage stage) { return kNames.at(static_cast<std::size_t>(stage)); }

Stage parse_stage(std::string_view name) {
  for (const Stage stage : kStages) {
    if (name_of(stage) == name) return stage;
  }
  throw Error(ErrorKind::kUsage,
              "stage \"" + std::string(name) + "\" is unknown" +
                  hint(name, std::vector<std::string>(kNames.begin(), kNames.end())),
              "stage");
}

std::span<const Stage> all_stages() { return kStages; }

std::vector<Stage> stages_of(const AttentionConfig& config) {
  std::vector<Stage> stages;
  for (const Stage stage : kStages) {
    if (produces(config, stage)) stages.push_back(stage);
  }
  return stages;
}

Shape stage_shape(const Case& c, Stage stage) {
  const AttentionConfig& config = c.config;
  switch (stage) {
    case Stage::kFreqsCis:
      return c.freqs_cis.shape();
    case Stage::kQProj:
    case Stage::kQNorm:
    case Stage::kQRope:
      return {c.tokens(), config.q_width()};
    case Stage::kKProj:
    case Stage::kKNorm:
    case Stage::kKRope:
      return {c.tokens(), config.k_width()};
    case Stage::kVProj:
      return {c.tokens(), config.v_width()};
    case Stage::kCacheK:
      return {c.total_keys(), config.num_key_value_heads, config.head_dim};
    case Stage::kCacheV:
      return {c.total_keys(), config.num_key_value_heads, config.head_dim_v};
    case Stage::kLse:
      return {c.tokens(), config.num_attention_heads};
    case Stage::kAttnOut:
      return {c.tokens(), config.attn_width()};
    case Stage::kOut:
      return {c.tokens(), config.hidden_size};
  }
  throw Error(ErrorKind::kInternal, "stage is not one of the enumeration");
}

Tensor logical_keys(const Case& c, const KvCache& cache) {
  return logical(c, cache, cache.k, cache.k_scale);
}

Tensor logical_values(const Case& c, const KvCache& cache) {
  return logical(c, cache, cache.v, cache.v_scale);
}

}  // namespace attn
