#pragma once

#include <functional>

#include "harness/backends/backend.h"
#include "harness/compare/compare.h"
#include "harness/report/report.h"

namespace attn::cli {

/// Runs the backend on the case. A refusal, an exception and a result become the verdict's status
/// (unsupported, crashed, passed); the trace is empty unless it ran. `other` is for the modes that
/// need another case.
harness::Verdict run_backend(const Case& c, const harness::Backend& backend, Trace& trace,
                             harness::ExecMode mode = harness::ExecMode::kPlain,
                             const Case* other = nullptr);

/// Judges every stage of what the backend returned. `exact` spares the trust tests their own
/// evaluation; null leaves them to the comparison.
harness::Verdict judge_trace(const Case& c, const harness::Backend& backend, const Trace& trace,
                             const harness::CompareOptions& options, const Trace* exact);

/// `body()` fills row.verdict. What it throws becomes the row's outcome: unreadable input, an
/// unsupported case, or an error of our own. Sets row.seconds. Never throws.
void guarded(harness::ReportRow& row, const std::function<void()>& body);

}  // namespace attn::cli
