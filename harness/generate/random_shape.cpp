#include <algorithm>
#include <array>
#include <numeric>

#include "harness/generate/random_draw.h"

namespace attn::harness {
namespace {

constexpr std::int64_t kMinHidden = 64;
constexpr std::int64_t kMaxHidden = 256;
// Elements of the four matrices together, so that a case is made in less than a millisecond.
constexpr std::int64_t kMaxWeights = 65536;
// The least that holds whole blocks of 256 columns, with a layer of three heads of 128.
constexpr std::int64_t kMaxBlockedWeights = 3 * 65536;

constexpr std::array kGguf = {QuantEncoding::kQ4_0, QuantEncoding::kQ8_0, QuantEncoding::kQ4_K,
                              QuantEncoding::kQ5_K, QuantEncoding::kQ6_K};

QuantConfig uniform(QuantEncoding encoding, ActivationQuant activation) {
  QuantConfig quant;
  quant.q_proj = quant.k_proj = quant.v_proj = quant.o_proj = encoding;
  quant.activation = activation;
  return quant;
}

/// What scales follow: each weight granularity with each activation mode that it may have.
std::vector<QuantConfig> scaled_quants() {
  using enum ActivationQuant;
  std::vector<QuantConfig> quants;
  for (const WeightGranularity granularity :
       {WeightGranularity::kTensor, WeightGranularity::kRowwise, WeightGranularity::kBlock}) {
    for (const ActivationQuant activation : {kNone, kStatic, kToken, kBlock}) {
      if (activation == kStatic && granularity != WeightGranularity::kTensor) continue;
      quants.push_back(uniform(QuantEncoding::kFloat8E4M3FN, activation));
      quants.back().weight_granularity = granularity;
    }
  }
  for (const QuantEncoding encoding :
       {QuantEncoding::kNvfp4, QuantEncoding::kMxfp4, QuantEncoding::kMxfp8}) {
    for (const ActivationQuant activation : {kNone, kBlock}) {
      quants.push_back(uniform(encoding, activation));
    }
  }
  return quants;
}

std::vector<QuantConfig> gguf_quants() {
  std::vector<QuantConfig> quants;
  for (const QuantEncoding encoding : kGguf) {
    for (const ActivationQuant activation : {ActivationQuant::kNone, ActivationQuant::kInt8}) {
      quants.push_back(uniform(encoding, activation));
    }
  }
  return quants;
}

std::vector<QuantConfig> gptq_quants() {
  std::vector<QuantConfig> quants;
  for (const std::int64_t bits : {4, 8}) {
    for (const std::int64_t group_size : {32, 64, 128, -1}) {
      quants.push_back(uniform(QuantEncoding::kGptq, ActivationQuant::kNone));
      quants.back().bits = bits;
      quants.back().group_size = group_size;
    }
  }
  return quants;
}

std::vector<Plan> quantised_plans() {
  std::vector<Plan> plans;
  const auto add = [&plans](Variant variant, const std::vector<QuantConfig>& quants, bool mixed) {
    for (const QuantConfig& quant : quants) plans.push_back({variant, quant, mixed});
  };
  add(Variant::kGguf, gguf_quants(), false);
  add(Variant::kGguf, gguf_quants(), true);
  add(Variant::kGptq, gptq_quants(), false);
  for (const Variant variant :
       {Variant::kAttentionWithRope, Variant::kTensorParallel, Variant::kDataParallel}) {
    add(variant, scaled_quants(), false);
    add(variant, gguf_quants(), false);
    add(variant, gptq_quants(), false);
  }
  return plans;
}

constexpr std::array kCacheGranularities = {ScaleGranularity::kNone, ScaleGranularity::kTensor,
                                            ScaleGranularity::kHead, ScaleGranularity::kTokenHead};

/// The encodings of a mixture after its first, not all the same; desc_act and the checkpoint's
/// version.
void draw_details(Draw& draw, const Plan& plan, QuantConfig& quant) {
  if (plan.mixed) {
    const std::vector<QuantEncoding> all(kGguf.begin(), kGguf.end());
    do {
      quant.k_proj = draw.pick(all);
      quant.v_proj = draw.pick(all);
      quant.o_proj = draw.pick(all);
    } while (quant.k_proj == quant.q_proj && quant.v_proj == quant.q_proj);
  }
  if (quant.q_proj == QuantEncoding::kGptq) {
    quant.desc_act = draw.one_in(2);
    quant.checkpoint_v2 = draw.one_in(3);
  }
}

}  // namespace

std::int64_t block_width(const QuantConfig& quant, QuantEncoding encoding) {
  using enum QuantEncoding;
  switch (encoding) {
    case kQ4_0:
    case kQ8_0:
    case kMxfp4:
    case kMxfp8:
      return 32;
    case kQ4_K:
    case kQ5_K:
    case kQ6_K:
      return 256;
    case kNvfp4:
      return 16;
    case kGptq:
      return quant.group_size > 0 ? quant.group_size : 1;
    default:
      return 1;
  }
}

void draw_fp8_blocks(Draw& draw, const AttentionConfig& config, QuantConfig& quant) {
  if (quant.weight_granularity != WeightGranularity::kBlock) return;
  std::vector<std::int64_t> heights;
  for (const std::int64_t height : {1, 2, 8, 16, 32, 64, 128}) {
    if (config.k_width() % height == 0) heights.push_back(height);
  }
  quant.block_n = draw.pick(heights);
  if (quant.activation == ActivationQuant::kBlock) return;
  quant.block_k = draw.pick<std::int64_t>({16, 24, 32, 64, 128});
}

bool is_gguf(QuantEncoding encoding) { return std::ranges::find(kGguf, encoding) != kGguf.end(); }

Plan plan_of(std::uint64_t seed) {
  static const std::vector<Plan> kQuantised = quantised_plans();
  constexpr std::array kCached = {Variant::kAttentionWithRope, Variant::kNoOpaque,
                                  Variant::kTensorParallel, Variant::kDataParallel,
                                  Variant::kAttention};
  const std::uint64_t round = seed / 8;
  const std::uint64_t place = seed % 8;
  if (place == 7) {
    return {kCached[round % kCached.size()], std::nullopt, false, true,
            kCacheGranularities[round / kCached.size() % kCacheGranularities.size()]};
  }
  if (place != 2 && place != 3 && place != 6) return {};
  const std::uint64_t number = 3 * round + (place == 6 ? 2 : place - 2);
  Plan plan = kQuantised[number % kQuantised.size()];
  // Four plans with an fp8 cache of each kind, four without; the next pass the other way round.
  const std::uint64_t turn = (number + 4 * (number / kQuantised.size())) % 8;
  plan.fp8_cache = turn < kCacheGranularities.size();
  if (plan.fp8_cache) plan.granularity = kCacheGranularities[turn];
  return plan;
}

/// Heads and widths. A layer's four matrices hold 2 (Hq + Hkv) D hidden <= kMaxWeights elements;
/// entry point attention has no matrices and takes three times as many heads.
void draw_shape(Draw& draw, AttentionConfig& config) {
  config.head_dim = draw.pick<std::int64_t>(
      {2, 4, 6, 8, 10, 12, 16, 16, 20, 24, 32, 32, 36, 48, 64, 80, 96, 128});
  config.head_dim_v = config.head_dim;
  const std::int64_t most_width = kMaxWeights / (2 * kMinHidden);
  const std::int64_t most_heads =  // Hq + Hkv
      (config.starts_at_attention() ? 3 * most_width : most_width) / config.head_dim;
  const std::int64_t ratio =
      draw.pick_up_to(most_heads - 1, {1, 1, 2, 2, 3, 4, 4, 5, 6, 7, 8, 16, 24});
  config.num_key_value_heads = draw.pick_up_to(most_heads / (ratio + 1), {1, 1, 2, 2, 3, 4, 8});
  config.num_attention_heads = ratio * config.num_key_value_heads;
  if (config.starts_at_attention()) {
    if (draw.one_in(3)) config.head_dim_v = draw.pick<std::int64_t>({2, 6, 16, 20, 32, 64, 128});
    return;
  }
  const std::int64_t width =
      2 * (config.num_attention_heads + config.num_key_value_heads) * config.head_dim;
  const std::int64_t most_hidden = std::min(kMaxHidden, kMaxWeights / width);
  config.hidden_size = draw.one_in(3) ? draw.between(kMinHidden, most_hidden)
                                      : draw.pick_up_to(most_hidden, {64, 64, 96, 128, 128, 256});
}

void draw_quantised_shape(Draw& draw, const Plan& plan, AttentionConfig& config) {
  QuantConfig& quant = *config.quant;
  draw_details(draw, plan, quant);
  std::int64_t hidden_unit = 1;
  for (const QuantEncoding encoding : {quant.q_proj, quant.k_proj, quant.v_proj}) {
    hidden_unit = std::lcm(hidden_unit, block_width(quant, encoding));
  }
  const std::int64_t width_unit = block_width(quant, quant.o_proj);
  const bool wide = std::max(hidden_unit, width_unit) > 128;
  const std::int64_t least_hidden = std::max(kMinHidden, hidden_unit);
  const std::int64_t most_width = (wide ? kMaxBlockedWeights : kMaxWeights) / (2 * least_hidden);

  struct Heads {
    std::int64_t dim, query, kv;
  };
  std::vector<Heads> fitting;
  for (const std::int64_t dim : {4, 8, 10, 16, 20, 24, 32, 48, 64, 80, 96, 128}) {
    for (const std::int64_t ratio : {1, 2, 3, 4, 5, 6, 7, 8, 16}) {
      for (const std::int64_t kv : {1, 2, 3, 4, 5, 6, 8}) {
        const bool fits = ratio * kv * dim % width_unit == 0;
        if (fits && (ratio + 1) * kv * dim <= most_width) fitting.push_back({dim, ratio * kv, kv});
      }
    }
  }
  const Heads heads = draw.pick(fitting);
  config.head_dim = config.head_dim_v = heads.dim;
  config.num_attention_heads = heads.query;
  config.num_key_value_heads = heads.kv;
  const std::int64_t width = (heads.query + heads.kv) * heads.dim;
  const std::int64_t most_hidden =
      std::min(kMaxHidden, (wide ? kMaxBlockedWeights : kMaxWeights) / (2 * width));
  const std::int64_t unit = std::max<std::int64_t>(hidden_unit, 8);
  config.hidden_size = unit * draw.between((least_hidden + unit - 1) / unit, most_hidden / unit);
  draw_fp8_blocks(draw, config, quant);
}

}  // namespace attn::harness
