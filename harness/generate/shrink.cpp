#include "harness/generate/shrink.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <utility>

#include "reference/core/error.h"

namespace attn::harness {
namespace {

/// Every spec that is one step simpler than a given one, the largest steps first. Each step goes
/// towards the plainest case in one field and never back, so that shrinking ends.
class SimplerSpecs {
 public:
  explicit SimplerSpecs(const CaseSpec& spec) : spec_(spec) {
    add_tasks();
    add_sequences();
    add_numbers();
    add_features();
    add_rope();
    add_data();
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

  static void settle(CaseSpec& spec);
  void add_tasks();
  void add_sequences();
  void add_numbers();
  void add_features();
  void add_rope();
  void add_data();
  void add_layout();
  void add_heads();
  void add_rows();

  const CaseSpec& spec_;
  std::vector<CaseSpec> simpler_;
};

/// What other fields must follow: widths, lists as long as the rotation has pairs, devices.
void SimplerSpecs::settle(CaseSpec& spec) {
  AttentionConfig& config = spec.config;
  if (!config.starts_at_attention()) config.head_dim_v = config.head_dim;
  if (config.rope.rotary_dim && *config.rope.rotary_dim >= config.head_dim) {
    config.rope.rotary_dim.reset();
    config.rope.rotary_side = RotarySide::kFirst;
  }
  RopeScaling& scaling = config.rope.scaling;
  const auto pairs = static_cast<std::size_t>(std::max<std::int64_t>(config.rotary_dim() / 2, 0));
  for (std::vector<double>* list : {&scaling.short_factor, &scaling.long_factor}) {
    if (list->size() > pairs) list->resize(pairs);
  }
  const bool deals_heads = config.variant == Variant::kTensorParallel;
  if (deals_heads && !config.kv_head_replication) {
    config.num_devices = std::min(config.num_devices, config.num_key_value_heads);
  }
  spec.layer = std::min(spec.layer, spec.layers - 1);
}

/// Attention alone instead of a layer, the standard layer instead of another variant.
void SimplerSpecs::add_tasks() {
  const AttentionConfig& config = spec_.config;
  if (config.starts_at_attention()) return;
  if (config.entry_point == EntryPoint::kForward) {
    add([](CaseSpec& spec) { spec = attention_alone(spec); });
  }
  if (config.variant == Variant::kAttentionWithRope) return;
  for (const bool keeps_quant : {false, true}) {
    add_to_config([&](AttentionConfig& simpler) {
      simpler.variant = Variant::kAttentionWithRope;
      simpler.num_devices = 1;
      simpler.kv_head_replication = false;
      simpler.stacked_qkv = false;
      if (!keeps_quant) simpler.quant.reset();
    });
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

/// Plain weights, a plain cache, float32.
void SimplerSpecs::add_numbers() {
  add_to_config([](AttentionConfig& config) { config.quant.reset(); });
  if (spec_.config.quant) {
    add_to_config(
        [](AttentionConfig& config) { config.quant->activation = ActivationQuant::kNone; });
    add_to_config([](AttentionConfig& config) {
      config.quant->weight_granularity = WeightGranularity::kTensor;
    });
    add_to_config([](AttentionConfig& config) {
      QuantConfig& quant = *config.quant;
      quant.k_proj = quant.v_proj = quant.o_proj = quant.q_proj;
    });
    add_to_config([](AttentionConfig& config) { config.quant->desc_act = false; });
  }
  add_to_config([](AttentionConfig& config) {
    config.kv_cache.dtype = config.dtype;
    config.kv_cache.scale_granularity = ScaleGranularity::kNone;
  });
  add_to_config(
      [](AttentionConfig& config) { config.kv_cache.scale_granularity = ScaleGranularity::kNone; });
  add_to_config([](AttentionConfig& config) {
    if (config.kv_cache.dtype == config.dtype) config.kv_cache.dtype = ElementType::kFloat32;
    config.dtype = ElementType::kFloat32;
  });
}

void SimplerSpecs::add_features() {
  add_to_config([](AttentionConfig& config) { config.use_qk_norm = false; });
  add_to_config([](AttentionConfig& config) { config.has_bias = false; });
  add_to_config([](AttentionConfig& config) { config.clip_qkv.reset(); });
  add_to_config([](AttentionConfig& config) { config.clip_activations.reset(); });
  add_to_config([](AttentionConfig& config) { config.logit_softcap.reset(); });
  add_to_config([](AttentionConfig& config) { config.scale.reset(); });
  add([](CaseSpec& spec) { spec.sinks = false; });
  if (spec_.config.variant != Variant::kNoOpaque) {
    add_to_config([](AttentionConfig& config) { config.stacked_qkv = false; });
  }
  if (!spec_.config.use_qk_norm) {
    add_to_config(
        [](AttentionConfig& config) { config.rms_norm_eps = AttentionConfig().rms_norm_eps; });
  }
  using Mask = MaskVariant;
  const Mask mask = spec_.config.mask.variant;
  if (mask != Mask::kNull) {
    add_to_config([](AttentionConfig& config) {
      config.mask = {};
      config.mask.variant = Mask::kNull;
    });
  }
  if (mask != Mask::kNull && mask != Mask::kCausal) {
    add_to_config([](AttentionConfig& config) {
      config.mask.variant = Mask::kCausal;
      config.mask.window_size.reset();
      config.mask.chunk_size.reset();
    });
  }
  add_to_config([](AttentionConfig& config) { config.mask.align = MaskAlign::kBottomRight; });
}

void SimplerSpecs::add_rope() {
  const RopeConfig plain;
  add_to_config([&](AttentionConfig& config) { config.rope = plain; });
  add_to_config([&](AttentionConfig& config) { config.rope.scaling = plain.scaling; });
  add_to_config([&](AttentionConfig& config) {
    config.rope.rotary_dim.reset();
    config.rope.rotary_side = plain.rotary_side;
  });
  add_to_config([&](AttentionConfig& config) { config.rope.rotary_side = plain.rotary_side; });
  add_to_config([&](AttentionConfig& config) { config.rope.interleaved = plain.interleaved; });
  add_to_config([&](AttentionConfig& config) { config.rope.theta = plain.theta; });
}

void SimplerSpecs::add_data() {
  add([](CaseSpec& spec) { spec.profile = "normal"; });
  add([](CaseSpec& spec) { spec.pages = PageOrder::kIdentity; });
  if (spec_.pages == PageOrder::kTop) {
    add([](CaseSpec& spec) { spec.pages = PageOrder::kShuffled; });
  }
  add([](CaseSpec& spec) { spec.layers = 1; });
  add_layout();
  // From the page that holds everything to those that are rare.
  constexpr std::array<std::int64_t, 8> kPages = {128, 16, 32, 64, 8, 4, 2, 1};
  for (const std::int64_t page : kPages) {
    if (page == spec_.config.kv_cache.page_size) break;
    add_to_config([&](AttentionConfig& config) { config.kv_cache.page_size = page; });
  }
}

/// The standard layout, then one feature less.
void SimplerSpecs::add_layout() {
  const MemoryLayout plain;
  add([&](CaseSpec& spec) { spec.layout = plain; });
  const auto reset = [&](auto MemoryLayout::*field) {
    add([&](CaseSpec& spec) { spec.layout.*field = plain.*field; });
  };
  reset(&MemoryLayout::cache);
  reset(&MemoryLayout::kv);
  reset(&MemoryLayout::q);
  reset(&MemoryLayout::out);
  reset(&MemoryLayout::broadcast);
  reset(&MemoryLayout::gap);
  reset(&MemoryLayout::channel_stride);
  reset(&MemoryLayout::offset);
  reset(&MemoryLayout::row_stride);
  reset(&MemoryLayout::pool_offset);
}

void SimplerSpecs::add_heads() {
  const AttentionConfig& config = spec_.config;
  add_to_config([](AttentionConfig& simpler) {
    simpler.kv_head_replication = false;
    simpler.num_devices = 1;
  });
  add_smaller(config.num_devices, 1,
              [](CaseSpec& spec, std::int64_t n) { spec.config.num_devices = n; });
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
  const MaskConfig& mask = spec_.config.mask;
  if (mask.window_size) {
    add_smaller(*mask.window_size, 1,
                [](CaseSpec& spec, std::int64_t n) { spec.config.mask.window_size = n; });
  }
  if (mask.chunk_size) {
    add_smaller(*mask.chunk_size, 1,
                [](CaseSpec& spec, std::int64_t n) { spec.config.mask.chunk_size = n; });
  }
}

}  // namespace

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

ShrinkResult shrink(const CaseSpec& spec, std::uint64_t seed,
                    const std::function<bool(const CaseSpec&, std::uint64_t)>& fails_alike,
                    double seconds) {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point start = Clock::now();
  const auto elapsed = [&] { return std::chrono::duration<double>(Clock::now() - start).count(); };
  ShrinkResult result{spec, seed, 0, 0.0};
  const auto try_one = [&](const CaseSpec& simpler, std::uint64_t simpler_seed) {
    ++result.tried;
    if (!fails_alike(simpler, simpler_seed)) return false;
    result.spec = simpler;
    result.seed = simpler_seed;
    return true;
  };
  bool smaller = true;
  while (smaller && elapsed() < seconds) {
    smaller = false;
    // After a success go on behind the step that succeeded: the ones before it have just failed,
    // and the next pass tries them again.
    std::vector<CaseSpec> simpler = SimplerSpecs(result.spec).take();
    for (std::size_t i = 0; i < simpler.size() && elapsed() < seconds;) {
      if (!try_one(simpler[i], result.seed)) {
        ++i;
        continue;
      }
      smaller = true;
      simpler = SimplerSpecs(result.spec).take();
    }
  }
  constexpr std::uint64_t kShortSeeds = 4;
  for (std::uint64_t n = 1; n < std::min(kShortSeeds, result.seed) && elapsed() < seconds; ++n) {
    if (try_one(result.spec, n)) break;
  }
  result.seconds = elapsed();
  return result;
}

}  // namespace attn::harness
