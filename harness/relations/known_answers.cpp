#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "harness/compare/bound.h"
#include "harness/relations/battery.h"
#include "harness/relations/transform.h"
#include "reference/stages/mask.h"
#include "reference/stages/weights.h"

namespace attn::harness {
namespace {

using Bitwise = Relation::Bitwise;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// ---- Every key by itself.

bool has_keys_to_see(const Case& c) {
  return c.config.starts_at_attention() && c.tokens() > 0 && c.total_keys() > 0;
}

/// A query row and the keys that it sees, with what a mask tensor adds to each.
struct SeeingRow {
  std::int64_t sequence = 0;
  std::int64_t row = 0;  ///< of its sequence
  std::vector<std::int64_t> keys;
  std::vector<double> added;
};

SeeingRow seeing_row(const Case& c, std::int64_t b, std::int64_t row) {
  SeeingRow result{b, row, {}, {}};
  const reference::RowMask mask = reference::row_mask(c, b, c.row_begin(b) + row);
  for (std::int64_t key = mask.begin; key < mask.end; ++key) {
    if (!mask.sees(key)) continue;
    result.keys.push_back(key);
    const bool is_tensor = !mask.added.empty();
    result.added.push_back(is_tensor ? mask.added[static_cast<std::size_t>(key - mask.begin)]
                                     : 0.0);
  }
  return result;
}

/// The first, a middle and the last row of every sequence, as far as they see keys and the calls
/// stay small.
std::vector<SeeingRow> rows_to_take_apart(const Case& c) {
  constexpr std::size_t kMostCalls = 160;  // a row of one key each
  std::vector<SeeingRow> rows;
  std::size_t calls = 0;
  for (std::int64_t b = 0; b < c.batch(); ++b) {
    std::vector<std::int64_t> chosen{0, c.row_count(b) / 2, c.row_count(b) - 1};
    if (c.row_count(b) == 0) continue;
    const auto [end, last] = std::ranges::unique(chosen);
    chosen.erase(end, last);
    for (const std::int64_t row : chosen) {
      SeeingRow seeing = seeing_row(c, b, row);
      if (seeing.keys.empty() || calls + seeing.keys.size() > kMostCalls) continue;
      calls += seeing.keys.size();
      rows.push_back(std::move(seeing));
    }
  }
  return rows;
}

/// A batch with a sequence for every key of every row: that row with that key alone, no mask and no
/// sink. Its lse is the logit of the key.
Case one_key_each(const Case& c, const std::vector<SeeingRow>& rows) {
  std::vector<Part> parts;
  std::vector<Range> keys;
  for (const SeeingRow& row : rows) {
    for (const std::int64_t key : row.keys) {
      parts.push_back({row.sequence, row.row, 1, c.cached(row.sequence)});
      keys.push_back({key, 1});
    }
  }
  MaskConfig none;
  none.variant = MaskVariant::kNull;
  Case singles = with_keys(with_mask(take(c, parts), none), keys);
  singles.weights.erase("sinks");
  return singles;
}

/// The softmax of one row and head over single keys: numbers `first` and on of `singles`.
///
/// A logit is off by at most d_j, so lse = log sum e^l_j by at most D = max d_j, and a probability
/// by a factor within e^(d_j + D) of 1.
void join_keys(const Case& c, const SeeingRow& row, std::int64_t head, std::size_t first,
               const Measurement& singles, Measurement& whole) {
  const auto heads = static_cast<std::size_t>(c.config.num_attention_heads);
  const auto channels = static_cast<std::size_t>(c.config.head_dim_v);
  const auto h = static_cast<std::size_t>(head);
  const Measured &logit = singles[Stage::kLse], &value = singles[Stage::kAttnOut];
  std::vector<double> logits;
  double most = -kInfinity, off = 0.0;
  for (std::size_t j = 0; j < row.keys.size(); ++j) {
    logits.push_back(logit.values[(first + j) * heads + h] + row.added[j]);
    most = std::max(most, logits.back());
    off = std::max(off, logit.allowed[(first + j) * heads + h]);
  }
  const double sink = c.has_sinks() ? c.weights.at("sinks").value(head) : -kInfinity;
  most = std::max(most, sink);
  double sum = std::exp(sink - most);
  for (const double l : logits) sum += std::exp(l - most);
  const double lse = most + std::log(sum);
  const auto token = static_cast<std::size_t>(c.row_begin(row.sequence) + row.row);
  const std::size_t at = token * heads + h;
  whole[Stage::kLse].values[at] = lse;
  whole[Stage::kLse].allowed[at] = off + kReferenceRoundoff * (1.0 + std::abs(lse));
  for (std::size_t d = 0; d < channels; ++d) {
    double out = 0.0, allowed = 0.0;
    for (std::size_t j = 0; j < logits.size(); ++j) {
      const std::size_t i = ((first + j) * heads + h) * channels + d;
      const double p = std::exp(logits[j] - lse);
      if (!(p > 0.0)) continue;  // a key without weight may hold anything
      const double d_j = logit.allowed[(first + j) * heads + h];
      out += p * value.values[i];
      allowed += p * (value.allowed[i] +
                      std::expm1(d_j + off) * (std::abs(value.values[i]) + value.allowed[i]));
      allowed += kReferenceRoundoff * (1.0 + std::abs(logits[j])) * p * std::abs(value.values[i]);
    }
    whole[Stage::kAttnOut].values[at * channels + d] = out;
    whole[Stage::kAttnOut].allowed[at * channels + d] = allowed;
  }
}

/// Attention is a softmax over logits, and the logit of a key is the lse of a call with that key
/// alone, whose output is its value.
RelationResult check_single_keys(const Subject& subject) {
  const Case& c = subject.c();
  const std::vector<SeeingRow> rows = rows_to_take_apart(c);
  if (rows.empty()) return skipped("no row sees a key");
  const Case singles = one_key_each(c, rows);
  if (std::string reason = refusal(subject, singles); !reason.empty()) {
    return skipped(std::move(reason));
  }
  const Measurement answers = measure(subject, singles, answer(subject, singles));
  const Measurement& own = own_measurement(subject);
  for (const Measurement* m : {&answers, &own}) {
    if ((*m)[Stage::kLse].empty() || (*m)[Stage::kAttnOut].empty()) {
      return skipped("the backend has not both lse and attn_out");
    }
  }
  Measurement whole;
  whole[Stage::kLse].leave_out(own[Stage::kLse].values.size());
  whole[Stage::kAttnOut].leave_out(own[Stage::kAttnOut].values.size());
  std::size_t first = 0;
  for (const SeeingRow& row : rows) {
    for (std::int64_t head = 0; head < c.config.num_attention_heads; ++head) {
      join_keys(c, row, head, first, answers, whole);
    }
    first += row.keys.size();
  }
  return compare_answers(subject, "single_keys", own, whole,
                         "the softmax of the logits of single keys");
}

// ---- Hidden states of zero.

bool has_hidden_states(const Case& c) { return !c.config.starts_at_attention() && c.tokens() > 0; }

/// Nothing times a weight is nothing, whatever the weight and its codes: what is left is the bias.
RelationResult check_zero_hidden(const Subject& subject) {
  using reference::Projection;
  Case zeros = subject.c();
  for (std::int64_t i = 0; i < zeros.x.size(); ++i) zeros.x.set_value(i, 0.0);
  const Subject other(zeros, subject.backend(), subject.options());
  const Measurement& got = own_measurement(other);
  Measurement want;
  for (const auto& [stage, projection] :
       {std::pair{Stage::kQProj, Projection::kQ}, std::pair{Stage::kKProj, Projection::kK},
        std::pair{Stage::kVProj, Projection::kV}}) {
    if (got[stage].empty()) continue;
    const auto width = static_cast<std::size_t>(row_width(zeros.config, stage));
    reference::Matrix bias = reference::Matrix::Zero(1, static_cast<std::int64_t>(width));
    if (zeros.config.has_bias) bias = reference::projection_bias(zeros, projection);
    Measured& values = want[stage];
    values.allowed.assign(got[stage].values.size(), 0.0);
    for (std::size_t i = 0; i < got[stage].values.size(); ++i) {
      const double b = bias(0, static_cast<std::int64_t>(i % width));
      const double clip = zeros.config.clip_activations.value_or(kInfinity);
      values.values.push_back(std::clamp(b, -clip, clip));
    }
  }
  return compare_answers(other, "zero_hidden", got, want, "the bias, as hidden states are 0");
}

// ---- Channels that rope leaves alone.

bool has_still_channels(const Case& c) {
  return has_hidden_states(c) && c.config.rotary_dim() < c.config.head_dim;
}

RelationResult check_still_channels(const Subject& subject) {
  const AttentionConfig& config = subject.c().config;
  const Measurement& own = own_measurement(subject);
  const std::int64_t rotary = config.rotary_dim();
  const std::int64_t first =
      config.rope.rotary_side == RotarySide::kLast ? 0 : rotary;  // of the still ones
  Measurement want;
  for (const auto& [to, from] :
       {std::pair{Stage::kQRope, config.use_qk_norm ? Stage::kQNorm : Stage::kQProj},
        std::pair{Stage::kKRope, config.use_qk_norm ? Stage::kKNorm : Stage::kKProj}}) {
    if (own[to].empty() || own[from].empty()) continue;
    want[to].leave_out(own[to].values.size());
    for (std::size_t i = 0; i < own[to].values.size(); ++i) {
      const std::int64_t channel = static_cast<std::int64_t>(i) % config.head_dim;
      if (channel < first || channel >= first + config.head_dim - rotary) continue;
      want[to].values[i] = own[from].values[i];
      want[to].allowed[i] = own[from].allowed[i];
    }
  }
  return compare_answers(subject, "still_channels", own, want, "what went into the rotation");
}

constexpr std::array kRelations{
    Relation{"single_keys", "attention is the softmax over the logits of single keys",
             Bitwise::kNever, has_keys_to_see, check_single_keys},
    Relation{"zero_hidden", "of hidden states of 0 the projections are the bias", Bitwise::kNever,
             has_hidden_states, check_zero_hidden},
    Relation{"still_channels", "channels outside of the rotation come out as they went in",
             Bitwise::kNever, has_still_channels, check_still_channels},
};

}  // namespace

std::span<const Relation> known_answer_relations() { return kRelations; }

}  // namespace attn::harness
