#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "harness/generate/random_draw.h"
#include "harness/generate/space.h"

namespace attn::harness {

/// An axis, how one of its values is put into a spec, and how it is read off again. Axes are
/// written in the order of the table, so that a later one may look at what an earlier one wrote: a
/// window at the lengths, a width at the encodings. What the value leaves open is drawn.
struct AxisRule {
  Axis axis;
  std::function<void(CaseSpec&, int value, Draw&)> write;
  /// The value's number, -1 when it is none of the listed ones.
  std::function<int(const CaseSpec&)> read;
};

/// The parts of the table, in order.
std::vector<AxisRule> layer_axes();   ///< variant, types, encodings, shape, projections, rope
std::vector<AxisRule> case_axes();    ///< pages, lengths, batch
std::vector<AxisRule> scores_axes();  ///< mask, span, scale, soft-cap, sinks, profile, devices
std::vector<AxisRule> layout_axes();  ///< how the tensors lie in memory

std::span<const AxisRule> axis_rules();

/// Number of the axis or of its value. Throws std::logic_error for an unknown name: a mistake in a
/// table.
int axis_number(std::string_view axis);
int value_number(int axis, std::string_view value);
/// The value's name as a number: "24".
std::int64_t value_as_integer(int axis, int value);

/// An axis that is one field of the spec with a list of values. `field` takes a spec, const or not,
/// and returns the field's reference.
template <typename T, typename Field>
AxisRule field_axis(std::string name, bool compile_time,
                    const std::vector<std::pair<std::string, T>>& values, Field field) {
  AxisRule rule;
  rule.axis.name = std::move(name);
  rule.axis.compile_time = compile_time;
  for (const auto& value : values) rule.axis.values.push_back(value.first);
  rule.write = [values, field](CaseSpec& spec, int value, Draw&) {
    field(spec) = values[static_cast<std::size_t>(value)].second;
  };
  rule.read = [values, field](const CaseSpec& spec) {
    for (std::size_t v = 0; v < values.size(); ++v) {
      if (field(spec) == values[v].second) return static_cast<int>(v);
    }
    return -1;
  };
  return rule;
}

/// Integers under their own names.
template <typename Field>
AxisRule integer_axis(std::string name, bool compile_time, const std::vector<std::int64_t>& values,
                      Field field) {
  std::vector<std::pair<std::string, std::int64_t>> named;
  named.reserve(values.size());
  for (const std::int64_t value : values) named.emplace_back(std::to_string(value), value);
  return field_axis<std::int64_t>(std::move(name), compile_time, named, field);
}

template <typename Field>
AxisRule flag_axis(std::string name, bool compile_time, Field field) {
  return field_axis<bool>(std::move(name), compile_time, {{"no", false}, {"yes", true}}, field);
}

/// Keys and queries of the sequences, whatever the entry point.
struct Lengths {
  std::int64_t queries = 0;
  std::int64_t keys = 0;
};
std::vector<Lengths> lengths_of(const CaseSpec& spec);
void set_lengths(CaseSpec& spec, std::span<const Lengths> lengths);
/// Keys of the longest sequence.
std::int64_t longest_keys(const CaseSpec& spec);

// What values mean in numbers, for the constraints.

/// The length that value `length` of kv_length has for pages of so many tokens; absent where it is
/// drawn, then it is at least 5.
std::optional<std::int64_t> fixed_length(std::string_view length, std::int64_t page_size);
/// Name of the kv_length value that a length belongs to; "" for 0.
std::string_view length_class(std::int64_t keys, std::int64_t page_size);
/// Name of the span value of a window (or chunk) of `size` beside `keys`.
std::string_view span_class(std::int64_t size, std::int64_t keys);
/// The smallest size of a span value beside `keys`; 0 where none exists.
std::int64_t least_span(std::string_view span, std::int64_t keys);

/// Columns of the smallest weights.
constexpr std::int64_t kLeastHidden = 32;
/// Smallest lengths of kv_length "short" and "long".
constexpr std::int64_t kShortFrom = 5;
constexpr std::int64_t kLongFrom = 130;
/// Elements that the four matrices of a case from the space may hold.
constexpr std::int64_t kMostWeights = 512'000;
/// Channels of all heads of q and k together.
constexpr std::int64_t kMostWidth = 640;

}  // namespace attn::harness
