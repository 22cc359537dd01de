#pragma once

#include <iosfwd>

#include "harness/compare/compare.h"

namespace attn::cli {

/// One line a stage: elements, how many are beyond their bound, worst error / bound and where.
void print_stage_table(std::ostream& out, const harness::Verdict& verdict);

/// What was not looked at, when only some rows were judged; nothing otherwise.
void print_row_coverage(std::ostream& out, const harness::Verdict& verdict,
                        const harness::RowSelection& rows);

}  // namespace attn::cli
