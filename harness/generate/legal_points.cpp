#include "harness/generate/legal_points.h"

#include <algorithm>

#include "harness/generate/space_constraints.h"

namespace attn::harness {
namespace {

/// Value numbers of entry `index`; -1 is open, the last digit of each axis.
std::vector<int> digits_of(std::size_t index, const std::vector<std::size_t>& strides,
                           const std::vector<int>& sizes) {
  std::vector<int> digits;
  for (std::size_t i = 0; i < strides.size(); ++i) {
    const auto radix = static_cast<std::size_t>(sizes[i]) + 1;
    const auto digit = static_cast<int>(index / strides[i] % radix);
    digits.push_back(digit == sizes[i] ? -1 : digit);
  }
  return digits;
}

}  // namespace

const LegalPoints& LegalPoints::instance() {
  static const LegalPoints kInstance;
  return kInstance;
}

LegalPoints::LegalPoints() {
  for (const Axis& axis : space_axes()) sizes_.push_back(static_cast<int>(axis.values.size()));
  tables_of_.resize(sizes_.size());
  for (const Constraint& constraint : space_constraints()) {
    Table table;
    std::vector<int> sizes;
    std::size_t entries = 1;
    for (const int axis : constraint.axes) {
      const auto a = static_cast<std::size_t>(axis);
      table.axes.push_back(a);
      tables_of_[a].push_back(tables_.size());
      table.strides.push_back(entries);
      sizes.push_back(sizes_[a]);
      entries *= static_cast<std::size_t>(sizes_[a]) + 1;
    }
    // An open digit is the largest of its axis, so the entries that it stands for come before it.
    table.possible.resize(entries);
    for (std::size_t index = 0; index < entries; ++index) {
      const std::vector<int> digits = digits_of(index, table.strides, sizes);
      const auto open = static_cast<std::size_t>(std::ranges::find(digits, -1) - digits.begin());
      if (open == digits.size()) {
        table.possible[index] = constraint.allows(digits) ? 1 : 0;
        continue;
      }
      for (int v = 1; v <= sizes[open]; ++v) {
        const std::size_t closed = index - static_cast<std::size_t>(v) * table.strides[open];
        table.possible[index] = static_cast<char>(table.possible[index] | table.possible[closed]);
      }
    }
    tables_.push_back(std::move(table));
  }
}

bool LegalPoints::Table::at(const Point& partial) const {
  std::size_t index = 0;
  for (std::size_t i = 0; i < axes.size(); ++i) {
    const int value = partial[axes[i]];
    if (value >= 0) {
      index += static_cast<std::size_t>(value) * strides[i];
    } else {
      const std::size_t end = i + 1 < axes.size() ? strides[i + 1] : possible.size();
      index += end - strides[i];
    }
  }
  return possible[index] != 0;
}

bool LegalPoints::allows(const Point& partial, std::size_t axis) const {
  return std::ranges::all_of(tables_of_[axis],
                             [&](std::size_t t) { return tables_[t].at(partial); });
}

bool LegalPoints::complete_from(Point& point, std::size_t axis) const {
  while (axis < point.size() && point[axis] >= 0) ++axis;
  if (axis == point.size()) return true;
  for (int v = 0; v < sizes_[axis]; ++v) {
    point[axis] = v;
    if (allows(point, axis) && complete_from(point, axis + 1)) return true;
  }
  point[axis] = -1;
  return false;
}

bool LegalPoints::complete(Point& point) const {
  const bool given = std::ranges::all_of(tables_, [&](const Table& t) { return t.at(point); });
  return given && complete_from(point, 0);
}

Point LegalPoints::draw_from(Point partial, Draw& draw) const {
  for (std::size_t axis = 0; axis < partial.size(); ++axis) {
    if (partial[axis] >= 0) continue;
    std::vector<int> possible;
    for (int v = 0; v < sizes_[axis]; ++v) {
      partial[axis] = v;
      if (is_legal(partial)) possible.push_back(v);
    }
    partial[axis] = draw.pick(possible);
  }
  return partial;
}

}  // namespace attn::harness
