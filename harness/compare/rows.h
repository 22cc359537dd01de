#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "harness/compare/compare.h"

namespace attn::harness {

/// The rows that `selection` judges, ascending. `block` is the backend's key block (0: none): rows
/// beside its edges are boundary rows too.
std::vector<std::int64_t> select_rows(const Case& c, const RowSelection& selection,
                                      std::int64_t block);

/// Sequence that owns row `row`.
std::int64_t sequence_of(const Case& c, std::int64_t row);

/// "row 129 (sequence 1, position 40)"
std::string describe_row(const Case& c, std::int64_t row);

}  // namespace attn::harness
