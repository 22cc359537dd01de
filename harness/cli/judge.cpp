#include "harness/cli/judge.h"

#include <chrono>
#include <exception>

#include "harness/backends/backend_failure.h"
#include "harness/backends/execution.h"
#include "reference/core/error.h"

namespace attn::cli {

using harness::Status;
using harness::Verdict;

Verdict run_backend(const Case& c, const harness::Backend& backend, Trace& trace,
                    harness::ExecMode mode, const Case* other) {
  Verdict verdict;
  try {
    verdict.detail = backend.unsupported_reason(c.config);
    if (!verdict.detail.empty()) {
      verdict.status = Status::kUnsupported;
      return verdict;
    }
    trace = harness::execute(backend, mode, c, other, stages_of(c.config));
  } catch (const Error& error) {
    verdict.status =
        error.kind() == ErrorKind::kUnsupported ? Status::kUnsupported : Status::kCrashed;
    verdict.detail = error.what();
  } catch (const harness::BackendFailure& failure) {
    verdict.status = failure.status();
    verdict.detail = failure.what();
  } catch (const std::exception& error) {
    verdict.status = Status::kCrashed;
    verdict.detail = error.what();
  }
  return verdict;
}

Verdict judge_trace(const Case& c, const harness::Backend& backend, const Trace& trace,
                    const harness::CompareOptions& options, const Trace* exact) {
  const harness::Arithmetic arithmetic = backend.arithmetic(c.config);
  harness::CompareOptions compare_options = options;
  const bool trust_here = options.check_trust && exact != nullptr;
  if (trust_here) compare_options.check_trust = false;
  Verdict verdict = harness::compare(c, trace, arithmetic, compare_options);
  if (trust_here && verdict.status == Status::kPassed) {
    verdict.detail = harness::mistrust_reason(c, *exact, arithmetic);
    if (!verdict.detail.empty()) verdict.status = Status::kMistrusted;
  }
  return verdict;
}

void guarded(harness::ReportRow& row, const std::function<void()>& body) {
  const auto start = std::chrono::steady_clock::now();
  try {
    body();
  } catch (const Error& error) {
    row.verdict = {};
    row.verdict.detail = error.what();
    switch (error.kind()) {
      case ErrorKind::kUsage:
      case ErrorKind::kConfig:
      case ErrorKind::kInput:
        row.trouble = harness::Trouble::kUnreadable;
        break;
      case ErrorKind::kUnsupported:
        row.verdict.status = Status::kUnsupported;
        break;
      case ErrorKind::kInternal:
        row.trouble = harness::Trouble::kInternal;
        break;
    }
  } catch (const harness::BackendFailure& failure) {
    row.verdict = {};
    row.verdict.status = failure.status();
    row.verdict.detail = failure.what();
  } catch (const std::exception& error) {
    row.verdict = {};
    row.verdict.detail = error.what();
    row.trouble = harness::Trouble::kInternal;
  }
  row.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace attn::cli
