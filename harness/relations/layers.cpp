#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <utility>

#include "harness/compare/bound.h"
#include "harness/compare/compare.h"
#include "harness/relations/battery.h"
#include "harness/relations/transform.h"

namespace attn::harness {
namespace {

using Bitwise = Relation::Bitwise;

bool is_layer(const Case& c) { return !c.config.starts_at_attention() && c.tokens() > 0; }

// ---- The table.

/// The table that a backend makes from the config is the one that the case holds: both lie within
/// the bound of a table made in float32.
RelationResult check_given_table(const Subject& subject) {
  const Case& c = subject.c();
  const Trace& trace = own_answer(subject);
  if (!trace.has(Stage::kFreqsCis)) return skipped("the backend makes no table");
  Trace table;
  table[Stage::kFreqsCis] = trace[Stage::kFreqsCis];
  const StageAllowances allowed =
      allowances(c, table, subject.backend().arithmetic(c.config), subject.options().threads);
  Measurement own, given;
  own[Stage::kFreqsCis] = {table[Stage::kFreqsCis].values(),
                           allowed[static_cast<std::size_t>(Stage::kFreqsCis)]};
  given[Stage::kFreqsCis] = {c.freqs_cis.values(), own[Stage::kFreqsCis].allowed};
  return compare_answers(subject, "given_table", own, given, "the table that the case holds");
}

// ---- Clips.

bool clips_weights(const Case& c) {
  return is_layer(c) && c.config.weight_clip().has_value() && !c.config.quant;
}

bool clips_activations(const Case& c) {
  return is_layer(c) && c.config.clip_activations.has_value();
}

bool is_input_projection(const std::string& name) {
  return name.ends_with("_proj.weight") && name != "o_proj.weight";
}

/// Weights that are within the clip before the layer sees them need none. Both sides have a clip
/// that is a number of the weights' type, since the layer need not round it.
RelationResult check_clip_beforehand(const Subject& subject) {
  Case base = subject.c();
  for (const auto& [name, weight] : base.weights) {
    if (is_input_projection(name)) {
      base.config.clip_qkv = round_to(weight.type(), *base.config.weight_clip());
    }
  }
  Case other = base;
  other.config.clip_qkv.reset();
  for (auto& [name, weight] : other.weights) {
    if (!is_input_projection(name)) continue;
    const double clip = *base.config.clip_qkv;
    for (std::int64_t i = 0; i < weight.size(); ++i) {
      weight.set_value(i, std::clamp(weight.value(i), -clip, clip));
    }
  }
  const Subject clipped(base, subject.backend(), subject.options());
  return check_counterpart(clipped, "clip_beforehand", other, same_place,
                           "the weights clipped before the call");
}

/// q, k and v without the clip, clipped here. Clipping moves no two values apart.
RelationResult check_clip_afterwards(const Subject& subject) {
  Case other = subject.c();
  const double clip = *other.config.clip_activations;
  other.config.clip_activations.reset();
  if (std::string reason = refusal(subject, other); !reason.empty()) {
    return skipped(std::move(reason));
  }
  const Measurement unclipped = measure(subject, other, answer(subject, other));
  Measurement clipped;
  for (const Stage stage : {Stage::kQProj, Stage::kKProj, Stage::kVProj}) {
    clipped[stage] = unclipped[stage];
    for (double& value : clipped[stage].values) value = std::clamp(value, -clip, clip);
  }
  return compare_answers(subject, "clip_afterwards", own_measurement(subject), clipped,
                         "q, k and v of the layer without the clip, then clipped");
}

// ---- The norm.

/// Twice the weights must be numbers of their type and twice the projections finite.
bool has_free_norm(const Case& c) {
  const AttentionConfig& config = c.config;
  return is_layer(c) && config.use_qk_norm && !config.quant && !config.weight_clip() &&
         !config.clip_activations && config.dtype != ElementType::kFloat16;
}

void scale_tensor(Tensor& t, double factor) {
  for (std::int64_t i = 0; i < t.size(); ++i) t.set_value(i, factor * t.value(i));
}

/// Twice the projection and four times eps is the same norm; twice the weight of k's norm is twice
/// its result. Powers of two do not round.
RelationResult check_norm_scale(const Subject& subject) {
  Case other = subject.c();
  other.config.rms_norm_eps *= 4.0;
  for (auto& [name, weight] : other.weights) {
    const bool projected = name.ends_with("_proj.bias") || is_input_projection(name);
    if (projected || name == "k_norm.weight") scale_tensor(weight, 2.0);
  }
  const Mapping mapping = [](Stage stage, std::int64_t row, std::int64_t column) {
    switch (stage) {
      case Stage::kQProj:
      case Stage::kKProj:
      case Stage::kVProj:
      case Stage::kKNorm:
        return Place{row, column, 0.5};
      case Stage::kQNorm:
        return Place{row, column};
      default:
        return Place{};  // the logits are others
    }
  };
  return check_counterpart(subject, "norm_scale", other, mapping,
                           "projections times 2, eps times 4, the weight of k's norm times 2");
}

bool has_free_projections(const Case& c) {
  return is_layer(c) && c.config.use_qk_norm && !c.config.quant && !c.config.weight_clip() &&
         c.config.dtype != ElementType::kFloat16;
}

/// Twice the projections and their clip, and four times eps: what comes out of the norm is the
/// same, and so is what becomes of it.
RelationResult check_scaled_projection(const Subject& subject) {
  Case other = subject.c();
  other.config.rms_norm_eps *= 4.0;
  if (other.config.clip_activations) *other.config.clip_activations *= 2.0;
  for (auto& [name, weight] : other.weights) {
    if (name.ends_with("_proj.bias") || is_input_projection(name)) scale_tensor(weight, 2.0);
  }
  const Mapping mapping = [](Stage stage, std::int64_t row, std::int64_t column) {
    switch (stage) {
      case Stage::kQProj:
      case Stage::kKProj:
      case Stage::kVProj:
        return Place{row, column, 0.5};
      case Stage::kCacheV:
      case Stage::kAttnOut:
      case Stage::kOut:
        return Place{};  // of values twice as large, but for those that were cached before
      default:
        return Place{row, column};
    }
  };
  return check_counterpart(subject, "scaled_projection", other, mapping,
                           "projections and their clip times 2, eps times 4");
}

// ---- Stacked weights.

bool is_stacked(const Case& c) { return is_layer(c) && c.config.stacked_qkv && !c.config.quant; }

RelationResult check_unstacked(const Subject& subject) {
  Case other = subject.c();
  const AttentionConfig& config = subject.c().config;
  other.config.stacked_qkv = false;
  if (other.config.variant == Variant::kNoOpaque)
    other.config.variant = Variant::kAttentionWithRope;
  const std::array<std::pair<const char*, std::int64_t>, 3> parts = {
      {{"q_proj", config.q_width()}, {"k_proj", config.k_width()}, {"v_proj", config.v_width()}}};
  for (const std::string suffix : {".weight", ".bias"}) {
    const auto stacked = other.weights.extract("qkv_proj" + suffix);
    if (stacked.empty()) continue;
    std::int64_t first = 0;
    for (const auto& [name, count] : parts) {
      std::vector<std::int64_t> rows = count_up(count);
      for (std::int64_t& row : rows) row += first;
      other.weights[name + suffix] = gather(stacked.mapped(), 0, rows);
      first += count;
    }
  }
  return check_counterpart(subject, "unstacked_qkv", other, same_place,
                           "the stacked weights as three");
}

constexpr std::array kRelations{
    Relation{"given_table", "the table that a layer makes is the one that the case holds",
             Bitwise::kNever, is_layer, check_given_table},
    Relation{"clip_beforehand", "clipped weights need no clip", Bitwise::kNever, clips_weights,
             check_clip_beforehand},
    Relation{"clip_afterwards", "q, k and v clipped after the call", Bitwise::kNever,
             clips_activations, check_clip_afterwards},
    Relation{"norm_scale", "projections and eps scaled together leave the norm as it is",
             Bitwise::kNever, has_free_norm, check_norm_scale},
    Relation{"scaled_projection", "what the norm gives, and what becomes of it, has no scale",
             Bitwise::kNever, has_free_projections, check_scaled_projection},
    Relation{"unstacked_qkv", "stacked weights equal three", Bitwise::kNever, is_stacked,
             check_unstacked},
};

}  // namespace

std::span<const Relation> layer_relations() { return kRelations; }

}  // namespace attn::harness
