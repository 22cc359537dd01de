#include "harness/relations/measurement.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "harness/backends/backend_failure.h"
#include "harness/compare/compare.h"
#include "harness/compare/rows.h"
#include "harness/report/format.h"
#include "reference/core/error.h"
#include "reference/core/rules.h"

namespace attn::harness {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// "row 3 (sequence 1, position 7), head 2, channel 5"
std::string describe_element(const Case& c, Stage stage, std::size_t element) {
  const std::int64_t width = row_width(c.config, stage);
  const auto flat = static_cast<std::int64_t>(element);
  std::int64_t row = flat / width;
  std::string text;
  if (is_cache(stage)) {
    std::int64_t b = 0;
    for (; row >= c.key_count(b); ++b) row -= c.key_count(b);
    text = "sequence " + std::to_string(b) + ", position " + std::to_string(row);
  } else if (stage == Stage::kFreqsCis) {
    text = "position " + std::to_string(row);
  } else {
    text = describe_row(c, row);
  }
  const std::int64_t column = flat % width, channels = channel_count(c.config, stage);
  if (channels > 0) text += ", head " + std::to_string(column / channels);
  if (channels == 1) return text;
  return text + ", channel " + std::to_string(channels > 0 ? column % channels : column);
}

/// Difference / allowed of two answers; infinity where they must be equal and are not.
double difference_ratio(double one, double other, double allowed, bool bitwise) {
  if (std::isnan(one) && std::isnan(other)) return 0.0;
  if (bitwise) {
    const bool equal = std::bit_cast<std::uint64_t>(one) == std::bit_cast<std::uint64_t>(other);
    return equal ? 0.0 : kInfinity;
  }
  if (one == other) return 0.0;
  if (!std::isfinite(one) || !std::isfinite(other)) return kInfinity;
  if (std::isnan(allowed)) return 0.0;  // the exact value is none
  return allowed > 0.0 ? std::abs(one - other) / allowed : kInfinity;
}

}  // namespace

bool is_cache(Stage stage) { return stage == Stage::kCacheK || stage == Stage::kCacheV; }

std::int64_t channel_count(const AttentionConfig& config, Stage stage) {
  switch (stage) {
    case Stage::kFreqsCis:
    case Stage::kOut:
      return 0;
    case Stage::kLse:
      return 1;
    case Stage::kVProj:
    case Stage::kCacheV:
    case Stage::kAttnOut:
      return config.head_dim_v;
    default:
      return config.head_dim;
  }
}

std::int64_t row_width(const AttentionConfig& config, Stage stage) {
  switch (stage) {
    case Stage::kFreqsCis:
      return config.rotary_dim();
    case Stage::kOut:
      return config.hidden_size;
    case Stage::kKProj:
    case Stage::kVProj:
    case Stage::kKNorm:
    case Stage::kKRope:
    case Stage::kCacheK:
    case Stage::kCacheV:
      return config.num_key_value_heads * channel_count(config, stage);
    default:
      return config.num_attention_heads * channel_count(config, stage);
  }
}

Trace answer(const Subject& subject, const Case& c) {
  Trace trace = subject.backend().run(c, stages_of(c.config));
  for (const Stage stage : all_stages()) {
    if (!trace.has(stage) || trace[stage].shape() == stage_shape(c, stage)) continue;
    throw BackendFailure(Status::kFailed, std::string(name_of(stage)) + ": shape " +
                                              attn::to_string(trace[stage].shape()) + ", must be " +
                                              attn::to_string(stage_shape(c, stage)));
  }
  return trace;
}

Measurement measure(const Subject& subject, const Case& c, const Trace& trace) {
  const StageAllowances allowed =
      allowances(c, trace, subject.backend().arithmetic(c.config), subject.options().threads);
  Measurement result;
  for (const Stage stage : all_stages()) {
    if (!trace.has(stage) || trace.is_given(stage) || stage == Stage::kFreqsCis) continue;
    result[stage].values = trace[stage].values();
    result[stage].allowed = allowed[static_cast<std::size_t>(stage)];
    result[stage].allowed.resize(result[stage].values.size(), 0.0);
  }
  return result;
}

const Trace& own_answer(const Subject& subject) {
  Subject::State& state = subject.state();
  if (!state.trace) state.trace = answer(subject, state.c);
  return *state.trace;
}

const Measurement& own_measurement(const Subject& subject) {
  Subject::State& state = subject.state();
  if (!state.measurement) state.measurement = measure(subject, state.c, own_answer(subject));
  return *state.measurement;
}

std::string refusal(const Subject& subject, const Case& counterpart) {
  try {
    validate(counterpart.config);
  } catch (const Error& error) {
    return error.what();
  }
  try {
    validate(counterpart);
  } catch (const Error& error) {
    throw Error(ErrorKind::kInternal, std::string("a relation made a wrong case: ") + error.what());
  }
  return subject.backend().unsupported_reason(counterpart.config);
}

Mapping sequence_mapping(const Case& c, std::span<const std::int64_t> order) {
  // Row of the batch for each token and key of c.
  std::vector<std::int64_t> tokens(static_cast<std::size_t>(c.tokens()), -1);
  std::vector<std::int64_t> keys(static_cast<std::size_t>(c.total_keys()), -1);
  std::vector<std::int64_t> key_begin{0};
  for (std::int64_t b = 0; b < c.batch(); ++b) {
    key_begin.push_back(key_begin.back() + c.key_count(b));
  }
  std::int64_t token = 0, key = 0;
  for (const std::int64_t b : order) {
    for (std::int64_t i = 0; i < c.row_count(b); ++i) {
      tokens[static_cast<std::size_t>(c.row_begin(b) + i)] = token++;
    }
    for (std::int64_t i = 0; i < c.key_count(b); ++i) {
      keys[static_cast<std::size_t>(key_begin[static_cast<std::size_t>(b)] + i)] = key++;
    }
  }
  return [tokens = std::move(tokens), keys = std::move(keys)](Stage stage, std::int64_t row,
                                                              std::int64_t column) {
    return Place{(is_cache(stage) ? keys : tokens)[static_cast<std::size_t>(row)], column};
  };
}

Measurement rearrange(const Measurement& answer, const Case& counterpart, const Case& c,
                      const Mapping& mapping) {
  Measurement result;
  for (const Stage stage : all_stages()) {
    const Measured& from = answer[stage];
    if (from.empty()) continue;
    Measured& to = result[stage];
    const std::int64_t width = row_width(c.config, stage);
    const std::int64_t from_width = row_width(counterpart.config, stage);
    const std::int64_t rows = is_cache(stage) ? c.total_keys() : c.tokens();
    to.leave_out(static_cast<std::size_t>(rows * width));
    for (std::int64_t row = 0; row < rows; ++row) {
      for (std::int64_t column = 0; column < width; ++column) {
        const Place place = mapping(stage, row, column);
        if (place.row < 0) continue;
        const auto i = static_cast<std::size_t>(row * width + column);
        const auto j = static_cast<std::size_t>(place.row * from_width + place.column);
        to.values[i] = place.sign * from.values.at(j);
        to.allowed[i] = std::abs(place.sign) * from.allowed.at(j);
      }
    }
  }
  return result;
}

RelationResult compare_answers(const Subject& subject, std::string_view relation,
                               const Measurement& one, const Measurement& other,
                               const std::string& counterpart, bool bitwise) {
  RelationResult result;
  for (const Stage stage : all_stages()) {
    const Measured &a = one[stage], &b = other[stage];
    if (a.empty() || b.empty() || result.broken) continue;
    std::int64_t bad = 0, compared = 0;
    double worst = 1.0;
    Broken broken;
    for (std::size_t i = 0; i < a.values.size(); ++i) {
      if (a.allowed[i] == kLeftOut || b.allowed[i] == kLeftOut) continue;
      const double allowed = a.allowed[i] + b.allowed[i];
      ++compared;
      const double ratio = difference_ratio(a.values[i], b.values[i], allowed, bitwise);
      result.worst_ratio = std::max(result.worst_ratio, ratio);
      if (ratio <= 1.0) continue;
      ++bad;
      if (ratio <= worst) continue;
      worst = ratio;
      broken = {std::string(relation),
                stage,
                describe_element(subject.c(), stage, i),
                a.values[i],
                b.values[i],
                bitwise ? 0.0 : allowed,
                {}};
    }
    if (bad == 0) continue;
    broken.detail = counterpart + ": " + format_count(bad) + " of " + format_count(compared) +
                    " elements of " + std::string(name_of(stage)) +
                    (bitwise ? " have other bits" : " differ by more than both bounds");
    result.broken = std::move(broken);
  }
  return result;
}

}  // namespace attn::harness
