#include "harness/cli/sealing.h"

#include "golden/second_evaluation.h"
#include "harness/report/format.h"
#include "reference/core/error.h"
#include "reference/reference.h"

namespace attn::cli {

void write_when_agreed(const Case& c, const golden::WriteOptions& options,
                       WithoutSecond without_second, harness::ReportRow& row) {
  const Trace exact = reference::evaluate(c, reference::Mode::kExact);
  golden::GoldenFile file = golden::make(c, exact, options);
  try {
    const golden::Agreement agreement = golden::agree(exact, golden::evaluate_second(c, exact));
    row.properties.emplace_back("agreement", agreement.worst);
    if (!agreement.agreed(kAgreement)) {
      row.verdict.status = harness::Status::kFailed;
      row.verdict.detail = disagreement(agreement, "the two evaluations");
      return;
    }
    row.verdict.detail =
        "written; two evaluations agree to " + harness::format_short(agreement.worst);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kUnsupported || without_second == WithoutSecond::kRefuse) throw;
    file.seal = golden::Seal::kUnsealed;
    file.content_sha256.clear();
    row.verdict.detail =
        std::string("written unsealed: the second evaluation does not cover it (") + error.what() +
        ")";
  }
  golden::write(file, row.file, options.force);
}

std::string disagreement(const golden::Agreement& agreement, const std::string& what) {
  return what + " disagree at " + std::string(name_of(agreement.stage)) + " by " +
         harness::format_short(agreement.worst) + " of its largest value (limit " +
         harness::format_short(kAgreement) + "); not written";
}

}  // namespace attn::cli
