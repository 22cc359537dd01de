#include "harness/generate/legal_points.h"

#include <algorithm>
#include <bit>

#include "harness/generate/space_constraints.h"

namespace attn::harness {
namespace {

/// Value numbers of entry `index`; -1 is open, the last digit of each axis.
std::vector<int> digits_of(std::size_t index, const std::vector<std::size_t>& strides,
                           const std::vector<int>& sizes) {
  std::vector<int> digits;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
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
    table.strides.push_back(entries);
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
    index +=
        value >= 0 ? static_cast<std::size_t>(value) * strides[i] : strides[i + 1] - strides[i];
  }
  return possible[index] != 0;
}

bool LegalPoints::narrow(Search& search, std::vector<std::size_t> given) const {
  while (!given.empty()) {
    const std::size_t axis = given.back();
    given.pop_back();
    for (const std::size_t t : tables_of_[axis]) {
      const Table& table = tables_[t];
      if (!table.at(search.point)) return false;
      for (const std::size_t other : table.axes) {
        if (search.point[other] >= 0) continue;
        std::uint32_t& left = search.left[other];
        for (int v = 0; v < sizes_[other]; ++v) {
          search.point[other] = v;
          if (!table.at(search.point)) left &= ~(std::uint32_t{1} << static_cast<unsigned>(v));
        }
        search.point[other] = -1;
        if (left == 0) return false;
        if (!std::has_single_bit(left)) continue;
        search.point[other] = std::countr_zero(left);
        given.push_back(other);
      }
    }
  }
  return true;
}

bool LegalPoints::give(Search& search, std::size_t axis, int value) const {
  search.point[axis] = value;
  search.left[axis] = std::uint32_t{1} << static_cast<unsigned>(value);
  return narrow(search, {axis});
}

bool LegalPoints::complete(Search& search) const {
  // The axis with the fewest values left first: where there is a contradiction, it shows soon.
  std::size_t next = sizes_.size();
  for (std::size_t axis = 0; axis < sizes_.size(); ++axis) {
    if (search.point[axis] >= 0) continue;
    if (next == sizes_.size() ||
        std::popcount(search.left[axis]) < std::popcount(search.left[next])) {
      next = axis;
    }
  }
  if (next == sizes_.size()) return true;
  for (int v = 0; v < sizes_[next]; ++v) {
    if ((search.left[next] >> static_cast<unsigned>(v) & 1U) == 0) continue;
    Search deeper = search;
    if (give(deeper, next, v) && complete(deeper)) {
      search = std::move(deeper);
      return true;
    }
  }
  return false;
}

bool LegalPoints::complete(Point& point) const {
  Search search{point, {}};
  std::vector<std::size_t> given;
  for (std::size_t axis = 0; axis < sizes_.size(); ++axis) {
    search.left.push_back((std::uint32_t{1} << static_cast<unsigned>(sizes_[axis])) - 1);
    if (point[axis] >= 0) given.push_back(axis);
  }
  if (!narrow(search, std::move(given)) || !complete(search)) return false;
  point = std::move(search.point);
  return true;
}

Point LegalPoints::draw_from(const Point& partial, Draw& draw) const {
  Point point = partial;
  for (std::size_t axis = 0; axis < point.size(); ++axis) {
    if (point[axis] >= 0) continue;
    std::vector<int> possible;
    for (int v = 0; v < sizes_[axis]; ++v) {
      point[axis] = v;
      if (is_legal(point)) possible.push_back(v);
    }
    point[axis] = draw.pick(possible);
  }
  return point;
}

}  // namespace attn::harness
