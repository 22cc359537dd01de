#include "harness/generate/shrink_steps.h"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "harness/generate/feature_axes.h"
#include "harness/generate/shrink.h"
#include "reference/core/error.h"

namespace attn::harness {
namespace {

class SimplerSpecs {
 public:
  explicit SimplerSpecs(const CaseSpec& spec) : spec_(spec) {
    add_tasks();
    add_sequences();
    add_features();
    add_parts();
    add_pages();
    add_heads();
    add_rows();
  }

  std::vector<CaseSpec> take() { return std::move(simpler_); }

 private:
  /// Changes a copy of the spec; kept when it is another one and valid.
  template <typename Change>
  void add(const Change& change) {
    CaseSpec simpler = spec_;
    change(simpler);
    settle(simpler);
    if (simpler == spec_) return;
    try {
      validate(simpler);
    } catch (const Error&) {
      return;
    }
    simpler_.push_back(std::move(simpler));
  }
  template <typename Change>
  void add_to_config(const Change& change) {
    add([&](CaseSpec& spec) { change(spec.config); });
  }
  /// set(spec, n) for `least`, then for what lies half, a quarter, ... of the way from n to it.
  template <typename Set>
  void add_smaller(std::int64_t n, std::int64_t least, const Set& set) {
    for (std::int64_t step = n - least; step > 0; step /= 2) {
      add([&](CaseSpec& spec) { set(spec, n - step); });
    }
  }

  void add_tasks();
  void add_sequences();
  void add_features();
  void add_parts();
  void add_pages();
  void add_heads();
  void add_rows();
  void add_reach(std::optional<std::int64_t> MaskConfig::*field);

  const CaseSpec& spec_;
  std::vector<CaseSpec> simpler_;
};

/// Attention alone instead of a layer.
void SimplerSpecs::add_tasks() {
  const AttentionConfig& config = spec_.config;
  if (config.starts_at_attention()) return;
  if (config.entry_point == EntryPoint::kForward) {
    add([](CaseSpec& spec) { spec = attention_alone(spec); });
  }
}

/// One sequence alone, then all but one.
void SimplerSpecs::add_sequences() {
  if (spec_.rows.size() < 2) return;
  for (const RowSpec& row : spec_.rows) {
    add([&](CaseSpec& spec) { spec.rows = {row}; });
  }
  for (std::size_t i = 0; i < spec_.rows.size(); ++i) {
    add([&](CaseSpec& spec) { spec.rows.erase(spec.rows.begin() + std::ptrdiff_t(i)); });
  }
}

/// One axis plain.
void SimplerSpecs::add_features() {
  for (const FeatureAxis& axis : feature_axes()) {
    if (axis.value(spec_)) add(axis.reset);
  }
}

/// Values of an axis that are plainer than others.
void SimplerSpecs::add_parts() {
  if (spec_.config.quant) {
    add_to_config([](AttentionConfig& config) {
      config.quant->weight_granularity = WeightGranularity::kTensor;
    });
    for (const auto encoding :
         {&QuantConfig::q_proj, &QuantConfig::k_proj, &QuantConfig::v_proj, &QuantConfig::o_proj}) {
      add_to_config([&](AttentionConfig& config) {
        QuantConfig& quant = *config.quant;
        quant.q_proj = quant.k_proj = quant.v_proj = quant.o_proj = quant.*encoding;
      });
    }
    add([](CaseSpec& spec) {  // a layer of its own is not needed to hold its weights
      if (spec.config.variant != Variant::kGguf && spec.config.variant != Variant::kGptq) return;
      spec.config.variant = Variant::kAttentionWithRope;
    });
  }
  add_to_config(
      [](AttentionConfig& config) { config.kv_cache.scale_granularity = ScaleGranularity::kNone; });
  using Mask = MaskVariant;
  const Mask mask = spec_.config.mask.variant;
  if (mask != Mask::kNull && mask != Mask::kCausal) {
    add_to_config([](AttentionConfig& config) {
      config.mask.variant = Mask::kCausal;
      config.mask.window_size.reset();
      config.mask.chunk_size.reset();
    });
  }
  add_to_config([](AttentionConfig& config) { config.rope = RopeConfig(); });
  add_to_config([](AttentionConfig& config) { config.rope.rotary_side = RotarySide::kFirst; });
  if (!spec_.config.use_qk_norm) {
    add_to_config(
        [](AttentionConfig& config) { config.rms_norm_eps = AttentionConfig().rms_norm_eps; });
  }
  add([](CaseSpec& spec) { spec.layout = MemoryLayout(); });
  if (spec_.pages == PageOrder::kTop) {
    add([](CaseSpec& spec) { spec.pages = PageOrder::kShuffled; });
  }
}

/// From the page that holds everything to those that are rare; one that is rarer only where it
/// leaves fewer keys, as many behind its last boundary as before.
void SimplerSpecs::add_pages() {
  constexpr std::array<std::int64_t, 8> kPages = {128, 16, 32, 64, 8, 4, 2, 1};
  const std::int64_t page = spec_.config.kv_cache.page_size;
  for (const std::int64_t other : kPages) {
    if (other == page) break;
    add_to_config([&](AttentionConfig& config) { config.kv_cache.page_size = other; });
  }
  constexpr std::int64_t kCommonPage = 16;
  if (page <= kCommonPage) return;
  add([&](CaseSpec& spec) {
    const auto fewer = [&](std::int64_t n) { return n / page * kCommonPage + n % page; };
    bool any = false;
    for (RowSpec& row : spec.rows) {
      any |= std::max(row.first, row.second) >= page;
      row = {fewer(row.first), fewer(row.second)};
    }
    if (any) spec.config.kv_cache.page_size = kCommonPage;
  });
}

void SimplerSpecs::add_heads() {
  const AttentionConfig& config = spec_.config;
  add_to_config([](AttentionConfig& simpler) {
    simpler.kv_head_replication = false;
    simpler.num_devices = 1;
  });
  add_smaller(config.num_devices, 1,
              [](CaseSpec& spec, std::int64_t n) { spec.config.num_devices = n; });
  if (config.num_devices % 2 == 0 && config.num_key_value_heads % 2 == 0) {
    add_to_config([](AttentionConfig& simpler) {
      simpler.num_devices /= 2;
      simpler.num_key_value_heads /= 2;
      simpler.num_attention_heads /= 2;
    });
  }
  const std::int64_t group = config.group_size();
  add_smaller(config.num_key_value_heads, 1, [group](CaseSpec& spec, std::int64_t n) {
    spec.config.num_key_value_heads = n;
    spec.config.num_attention_heads = n * group;
  });
  add_smaller(group, 1, [](CaseSpec& spec, std::int64_t n) {
    spec.config.num_attention_heads = n * spec.config.num_key_value_heads;
  });
  // In pairs of channels, as rope needs them.
  add_smaller(config.head_dim / 2, 1, [](CaseSpec& spec, std::int64_t n) {
    if (spec.config.head_dim_v == spec.config.head_dim) spec.config.head_dim_v = 2 * n;
    spec.config.head_dim = 2 * n;
  });
  if (config.starts_at_attention()) {
    add_to_config([](AttentionConfig& simpler) { simpler.head_dim_v = simpler.head_dim; });
    if (config.head_dim_v != config.head_dim) {
      add_smaller(config.head_dim_v, 1,
                  [](CaseSpec& spec, std::int64_t n) { spec.config.head_dim_v = n; });
    }
    return;
  }
  if (config.rope.rotary_dim) {
    add_smaller(*config.rope.rotary_dim / 2, 1,
                [](CaseSpec& spec, std::int64_t n) { spec.config.rope.rotary_dim = 2 * n; });
  }
  for (const std::int64_t unit : {256, 128, 64, 32, 1}) {  // blocks of quantised weights
    if (config.hidden_size % unit != 0) continue;
    add_smaller(config.hidden_size / unit, 1,
                [unit](CaseSpec& spec, std::int64_t n) { spec.config.hidden_size = n * unit; });
  }
}

/// Lengths of all sequences at once, then of each; window and chunk.
void SimplerSpecs::add_rows() {
  add([](CaseSpec& spec) {
    for (RowSpec& row : spec.rows) row = {row.first / 2, (row.second + 1) / 2};
  });
  for (std::size_t i = 0; i < spec_.rows.size(); ++i) {
    add_smaller(spec_.rows[i].first, 0,
                [i](CaseSpec& spec, std::int64_t n) { spec.rows[i].first = n; });
    add_smaller(spec_.rows[i].second, 0,
                [i](CaseSpec& spec, std::int64_t n) { spec.rows[i].second = n; });
  }
  add_reach(&MaskConfig::window_size);
  add_reach(&MaskConfig::chunk_size);
}

/// Window or chunk alone, and with as many keys less.
void SimplerSpecs::add_reach(std::optional<std::int64_t> MaskConfig::*field) {
  const std::optional<std::int64_t> reach = spec_.config.mask.*field;
  if (!reach) return;
  add_smaller(*reach, 1, [field](CaseSpec& spec, std::int64_t n) { spec.config.mask.*field = n; });
  const auto keys = spec_.config.starts_at_attention() ? &RowSpec::second : &RowSpec::first;
  add_smaller(*reach, 1, [field, keys](CaseSpec& spec, std::int64_t n) {
    const std::int64_t fewer = *(spec.config.mask.*field) - n;
    spec.config.mask.*field = n;
    for (RowSpec& row : spec.rows) row.*keys = std::max<std::int64_t>(row.*keys - fewer, 0);
  });
}

}  // namespace

std::vector<CaseSpec> simpler_specs(const CaseSpec& spec) { return SimplerSpecs(spec).take(); }

CaseSpec attention_alone(const CaseSpec& spec) {
  const AttentionConfig& layer = spec.config;
  CaseSpec alone = spec;
  AttentionConfig& config = alone.config;
  config = {};
  config.variant = Variant::kAttention;
  config.entry_point = EntryPoint::kAttention;
  config.num_attention_heads = layer.num_attention_heads;
  config.num_key_value_heads = layer.num_key_value_heads;
  config.head_dim = config.head_dim_v = layer.head_dim;
  config.dtype = layer.dtype;
  config.scale = layer.scale;
  config.logit_softcap = layer.logit_softcap;
  config.mask = layer.mask;
  config.kv_cache = layer.kv_cache;
  for (RowSpec& row : alone.rows) row = {row.second, row.first + row.second};
  return alone;
}

}  // namespace attn::harness
