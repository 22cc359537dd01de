#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "harness/compare/compare.h"
#include "reference/core/case.h"

namespace attn::cli {

/// Some query rows of an attention case as a case of their own.
struct SampledCase {
  Case c;
  std::vector<std::int64_t> rows;  ///< of the whole case, ascending
  std::string note;                ///< how many of how many
};

/// Whether evaluating all rows of an attention case takes more than some seconds.
bool is_large(const Case& c);

/// The selected rows with all their keys; `block` keys are one step of the kernel, whose edges are
/// boundaries too (0: none). What each of them sees becomes a mask tensor, since they
/// no longer lie one behind the other. Throws Error(kUsage) when no row is left.
SampledCase sample_rows(const Case& c, const harness::RowSelection& selection, std::int64_t block);

}  // namespace attn::cli
