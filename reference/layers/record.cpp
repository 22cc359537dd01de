#include "reference/layers/record.h"

#include <cstddef>
#include <numeric>

namespace attn::reference {

void record(Trace& trace, const Case& c, Stage stage, const MatrixView& result) {
  trace[stage] = to_tensor(result, stage_shape(c, stage));
}

std::vector<std::int64_t> all_rows(const Case& c) {
  std::vector<std::int64_t> rows(static_cast<std::size_t>(c.tokens()));
  std::iota(rows.begin(), rows.end(), 0);
  return rows;
}

}  // namespace attn::reference
