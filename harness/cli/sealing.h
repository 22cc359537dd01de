#pragma once

#include <string>

#include "golden/golden_file.h"
#include "golden/second_evaluation.h"
#include "harness/report/report.h"
#include "reference/core/case.h"

namespace attn::cli {

/// Two evaluations that share no stage code must agree to this fraction of each stage's largest
/// value before a file is sealed.
inline constexpr double kAgreement = 1e-11;

/// What to do with a case that the second evaluation does not cover.
enum class WithoutSecond { kRefuse, kWriteUnsealed };

/// Evaluates the case twice; where the two agree it is written to row.file with the exact
/// reference's stages and sealed, where they do not nothing is written and the row fails. Says in
/// row.verdict.detail what was done. Throws what the evaluations and the writing throw.
void write_when_agreed(const Case& c, const golden::WriteOptions& options,
                       WithoutSecond without_second, harness::ReportRow& row);

/// "WHAT disagree at STAGE by ...; not written"
std::string disagreement(const golden::Agreement& agreement, const std::string& what);

}  // namespace attn::cli
