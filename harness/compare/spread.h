#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace attn::harness {

/// Where the bad elements of a stage lie, gathered by row and head.
class Spread {
 public:
  /// `row_word` "row" or "position"; `heads` 1 for a stage without heads.
  Spread(std::string_view row_word, std::int64_t heads) : row_word_(row_word), heads_(heads) {}

  /// Whether an element of this row (its number in the call or its position) and head is bad.
  void add(std::int64_t row, std::int64_t head, bool bad);

  /// "wrong in rows 3 to 5 of 8 and heads 4 to 7 of 8, right in all others"; where rows and heads
  /// make no rectangle, how many of the pairs, and how far they reach. "" when nothing is bad, or
  /// there is one row and head.
  std::string words() const;

 private:
  std::string_view row_word_;
  std::int64_t heads_;
  std::vector<std::int64_t> rows_;      ///< in the order of their first element
  std::vector<std::vector<bool>> bad_;  ///< by row, then head
};

/// "0, 2 and 4 to 7"; past four ranges "0, 2, 4 to 7, 9, ... 31".
std::string range_words(const std::vector<std::int64_t>& ascending);

}  // namespace attn::harness
