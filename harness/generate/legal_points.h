#pragma once

#include <cstdint>
#include <vector>

#include "harness/generate/random_draw.h"
#include "harness/generate/space.h"

namespace attn::harness {

/// Judges partial points by the constraints of the space. A constraint becomes a table over its
/// axes with one more value each, "open": an entry says whether the open ones can still be chosen
/// so that the constraint holds.
class LegalPoints {
 public:
  static const LegalPoints& instance();

  /// Gives every open (-1) axis a value. False when none fit; `point` is then left half done.
  bool complete(Point& point) const;

  /// A legal point, the open axes of `partial` drawn one after another from the values that leave a
  /// completion. Axes come in the order of the table: those that decide most come first. `partial`
  /// is legal.
  Point draw_from(const Point& partial, Draw& draw) const;

 private:
  struct Table {
    std::vector<std::size_t> axes;
    std::vector<std::size_t> strides;  ///< of the axes, then of the end
    std::vector<char> possible;
    bool at(const Point& partial) const;
  };

  /// A point in the making and the values that no table forbids beside those given, as bits.
  struct Search {
    Point point;
    std::vector<std::uint32_t> left;
  };

  LegalPoints();
  /// Narrows what is left beside the values of `given`; what has one value left is given it. False
  /// when an axis has none left.
  bool narrow(Search& search, std::vector<std::size_t> given) const;
  bool give(Search& search, std::size_t axis, int value) const;
  bool complete(Search& search) const;

  std::vector<Table> tables_;
  std::vector<std::vector<std::size_t>> tables_of_;  ///< per axis
  std::vector<int> sizes_;                           ///< values per axis
};

}  // namespace attn::harness
