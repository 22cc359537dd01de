#pragma once

#include <cstdint>
#include <vector>

#include "harness/generate/random_draw.h"
#include "harness/generate/space.h"

namespace attn::harness {

/// Judges partial points by the constraints of the space. A constraint becomes a table over its
/// axes with one more value each, "open": an entry says whether the open ones can still be chosen
/// so that the constraint holds. That prunes the search for a completion early.
class LegalPoints {
 public:
  static const LegalPoints& instance();

  /// No constraint that touches `axis` forbids what is given.
  bool allows(const Point& partial, std::size_t axis) const;

  /// Gives every open (-1) axis a value, the first ones that work. False, and `point` unchanged,
  /// when none do.
  bool complete(Point& point) const;

  /// A legal point, the open axes of `partial` drawn one after another from the values that leave a
  /// completion. Axes come in the order of the table: those that decide most come first. `partial`
  /// is legal.
  Point draw_from(Point partial, Draw& draw) const;

 private:
  struct Table {
    std::vector<std::size_t> axes;
    std::vector<std::size_t> strides;
    std::vector<char> possible;
    bool at(const Point& partial) const;
  };

  LegalPoints();
  bool complete_from(Point& point, std::size_t axis) const;

  std::vector<Table> tables_;
  std::vector<std::vector<std::size_t>> tables_of_;  ///< per axis
  std::vector<int> sizes_;                           ///< values per axis
};

}  // namespace attn::harness
