#include <algorithm>
#include <charconv>

#include "harness/generate/shrink.h"
#include "reference/core/element.h"

namespace attn::harness {
namespace {

// Sizes up to these are as plain as one: a reader can take them in, and nothing is smaller that
// still has a first, a middle and a last.
constexpr std::int64_t kPlainRows = 4;
constexpr std::int64_t kPlainKeys = 16;
constexpr std::int64_t kPlainHeadDim = 16;
constexpr std::int64_t kPlainHidden = 64;

std::string shortest(double value) {
  char text[32];
  return {text, std::to_chars(text, text + sizeof text, value).ptr};
}

class Features {
 public:
  explicit Features(const CaseSpec& spec) : spec_(spec), config_(spec.config) {
    add_sizes();
    add_numbers();
    add_attention();
    if (!config_.starts_at_attention()) {
      add_projection();
      add_rope();
    }
    add_data();
    add_layout();
  }

  std::vector<std::string> take() { return std::move(features_); }

 private:
  void add(bool present, const std::string& name, const std::string& value = "") {
    if (!present) return;
    features_.push_back(name);
    if (!value.empty()) features_.back().append(": ").append(value);
  }
  void add_above(const std::string& name, std::int64_t value, std::int64_t plain) {
    add(value > plain, name, std::to_string(value));
  }

  void add_sizes() {
    std::int64_t rows = 0, keys = 0;
    for (const RowSpec& row : spec_.rows) {
      rows = std::max(rows, config_.starts_at_attention() ? row.first : row.second);
      keys = std::max(keys, config_.starts_at_attention() ? row.second : row.first + row.second);
    }
    add_above("sequences", std::ssize(spec_.rows), 1);
    add_above("query rows", rows, kPlainRows);
    add_above("keys", keys, kPlainKeys);
    add_above("kv heads", config_.num_key_value_heads, 1);
    add_above("group size", config_.group_size(), 1);
    add_above("head_dim", config_.head_dim, kPlainHeadDim);
    add(config_.head_dim_v != config_.head_dim, "head_dim_v", std::to_string(config_.head_dim_v));
    add_above("hidden_size", config_.hidden_size, kPlainHidden);
    add_above("layers", spec_.layers, 1);
    add_above("devices", config_.num_devices, 1);
    add(config_.kv_head_replication, "kv_head_replication");
  }

  void add_numbers() {
    const KvCacheConfig& cache = config_.kv_cache;
    add(config_.dtype != ElementType::kFloat32, "dtype", std::string(element_name(config_.dtype)));
    std::string kind(element_name(cache.dtype));
    if (cache.scale_granularity != ScaleGranularity::kNone) {
      kind.append(", a scale per ").append(name_of(cache.scale_granularity));
    }
    add(cache.dtype != config_.dtype || cache.scale_granularity != ScaleGranularity::kNone, "cache",
        kind);
    if (!config_.quant) return;
    // GGUF and GPTQ are quantised by definition.
    const bool own = config_.variant == Variant::kGguf || config_.variant == Variant::kGptq;
    const bool plain = own && config_.quant->activation == ActivationQuant::kNone;
    add(!plain, "quant", std::string(name_of(config_.quant->q_proj)));
  }

  void add_attention() {
    const MaskConfig& mask = config_.mask;
    std::string name(name_of(mask.variant));
    if (mask.window_size) name.append(" ").append(std::to_string(*mask.window_size));
    if (mask.chunk_size) name.append(" ").append(std::to_string(*mask.chunk_size));
    add(mask.variant != MaskVariant::kCausal && mask.variant != MaskVariant::kNull, "mask", name);
    add(mask.align != MaskAlign::kBottomRight, "align", std::string(name_of(mask.align)));
    add(config_.scale.has_value(), "scale", shortest(config_.scale.value_or(0)));
    add(config_.logit_softcap.has_value(), "logit_softcap",
        shortest(config_.logit_softcap.value_or(0)));
    add(spec_.sinks, "sinks");
  }

  void add_projection() {
    add(config_.stacked_qkv && config_.variant != Variant::kNoOpaque, "stacked_qkv");
    add(config_.has_bias, "has_bias");
    add(config_.clip_qkv.has_value(), "clip_qkv", shortest(config_.clip_qkv.value_or(0)));
    add(config_.clip_activations.has_value(), "clip_activations",
        shortest(config_.clip_activations.value_or(0)));
    add(config_.use_qk_norm, "use_qk_norm");
  }

  void add_rope() {
    const RopeConfig& rope = config_.rope;
    add(!rope.interleaved, "rope", "halves");
    add(rope.rotary_dim.has_value(), "rotary_dim", std::to_string(config_.rotary_dim()));
    add(rope.rotary_side != RotarySide::kFirst, "rotary_side", "last");
    add(rope.theta != RopeConfig().theta, "theta", shortest(rope.theta));
    add(rope.scaling.type != RopeScalingType::kDefault, "rope scaling",
        std::string(name_of(rope.scaling.type)));
  }

  void add_data() {
    add(config_.kv_cache.page_size != KvCacheConfig().page_size, "page_size",
        std::to_string(config_.kv_cache.page_size));
    add(spec_.pages == PageOrder::kShuffled, "pages", "shuffled");
    add(spec_.pages == PageOrder::kTop, "pages", "top of the pool");
    add(spec_.profile != "normal", "profile", spec_.profile);
  }

  void add_layout() {
    const MemoryLayout plain;
    const MemoryLayout& layout = spec_.layout;
    add(layout.cache != plain.cache, "layout", "hnd");
    add(layout.kv != plain.kv, "layout", "k and v in one allocation");
    add(layout.q != plain.q, "layout", "q as a view");
    add(layout.out != plain.out, "layout", "outputs transposed");
    add(layout.broadcast, "layout", "broadcast");
    add(layout.gap != plain.gap, "gap", std::to_string(layout.gap));
    add(layout.channel_stride != plain.channel_stride, "channel_stride",
        std::to_string(layout.channel_stride));
    add(layout.offset != plain.offset, "offset", std::to_string(layout.offset));
    add(layout.row_stride != plain.row_stride, "row_stride", std::to_string(layout.row_stride));
    add(layout.pool_offset != plain.pool_offset, "pool_offset", std::to_string(layout.pool_offset));
  }

  const CaseSpec& spec_;
  const AttentionConfig& config_;
  std::vector<std::string> features_;
};

}  // namespace

std::vector<std::string> non_default_features(const CaseSpec& spec) {
  return Features(spec).take();
}

}  // namespace attn::harness
