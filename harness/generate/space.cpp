#include "harness/generate/space.h"

#include <algorithm>
#include <charconv>
#include <stdexcept>

#include "harness/generate/legal_points.h"
#include "harness/generate/space_axes.h"

namespace attn::harness {

std::span<const AxisRule> axis_rules() {
  static const std::vector<AxisRule> kRules = [] {
    std::vector<AxisRule> rules;
    for (const auto& part : {layer_axes(), case_axes(), scores_axes(), layout_axes()}) {
      rules.insert(rules.end(), part.begin(), part.end());
    }
    return rules;
  }();
  return kRules;
}

std::span<const Axis> space_axes() {
  static const std::vector<Axis> kAxes = [] {
    std::vector<Axis> axes;
    for (const AxisRule& rule : axis_rules()) axes.push_back(rule.axis);
    return axes;
  }();
  return kAxes;
}

int axis_number(std::string_view axis) {
  const std::span<const Axis> axes = space_axes();
  const auto found =
      std::ranges::find_if(axes, [axis](const Axis& known) { return known.name == axis; });
  if (found == axes.end()) throw std::logic_error("no axis " + std::string(axis));
  return static_cast<int>(found - axes.begin());
}

int value_number(int axis, std::string_view value) {
  const Axis& in = space_axes()[static_cast<std::size_t>(axis)];
  const auto found = std::ranges::find(in.values, value);
  if (found == in.values.end()) {
    throw std::logic_error("axis " + in.name + " has no value " + std::string(value));
  }
  return static_cast<int>(found - in.values.begin());
}

std::int64_t value_as_integer(int axis, int value) {
  const std::string& name =
      space_axes()[static_cast<std::size_t>(axis)].values.at(static_cast<std::size_t>(value));
  std::int64_t number = 0;
  std::from_chars(name.data(), name.data() + name.size(), number);
  return number;
}

bool is_legal(const Point& partial) {
  Point point = partial;
  return LegalPoints::instance().complete(point);
}

CaseSpec spec_of(const Point& point, std::uint64_t seed) {
  CaseSpec spec;
  Draw draw(seed, "space");
  const std::span<const AxisRule> rules = axis_rules();
  for (std::size_t a = 0; a < rules.size(); ++a) rules[a].write(spec, point.at(a), draw);
  return spec;
}

Point point_of(const CaseSpec& spec) {
  Point point;
  for (const AxisRule& rule : axis_rules()) point.push_back(rule.read(spec));
  return point;
}

}  // namespace attn::harness
