#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <ostream>
#include <thread>

#include "harness/backends/backend.h"
#include "harness/cli/exit_code.h"
#include "harness/cli/interrupt.h"
#include "harness/cli/judge.h"
#include "harness/cli/verbs.h"
#include "harness/report/format.h"

namespace attn::cli {
namespace {

using harness::ReportRow;
using harness::Status;

/// What `git bisect run` makes of a step.
enum Judgement : int { kGood = 0, kBad = 1, kCannotTell = kCannotJudge };

/// Runs the command in a shell, what it prints on our stderr. Its exit code, or 128 + its signal.
int build(const std::string& command) {
  const pid_t child = fork();
  if (child == 0) {
    dup2(STDERR_FILENO, STDOUT_FILENO);
    execl("/bin/sh", "sh", "-c", command.c_str(), static_cast<char*>(nullptr));
    _exit(127);
  }
  int status = 0;
  if (child < 0 || waitpid(child, &status, 0) != child) return 127;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/// A backend that dies on the case or runs out of time is bad. What says nothing about the commit
/// is neither: a case that it does not support, or that could not have shown a bug.
Judgement judgement_of(const ReportRow& row) {
  if (row.trouble != harness::Trouble::kNone) return kCannotTell;
  switch (row.verdict.status) {
    case Status::kPassed:
      return kGood;
    case Status::kFailed:
    case Status::kCrashed:
    case Status::kTimedOut:
      return kBad;
    case Status::kUnsupported:
    case Status::kSkipped:
    case Status::kMistrusted:
      break;
  }
  return kCannotTell;
}

}  // namespace

int bisect_step(const BisectStepOptions& options, const Session& session) {
  const InterruptGuard guard;
  std::ostream& out = session.streams.out;
  const LoadedCase loaded = load_case(options.source);
  if (!options.build.empty()) {
    if (const int code = build(options.build); code != 0) {
      out << "cannot be judged: the build ended with " << code << ": " << options.build
          << std::endl;
      return interrupted() ? int{kInterrupted} : int{kCannotTell};
    }
  }
  ReportRow row;
  row.name = loaded.c.id;
  row.backend = options.backend;
  // Opened after the build, which made it.
  guarded(row, [&] {
    const std::unique_ptr<harness::Backend> backend =
        open_backend(options.backend, options.isolation);
    Trace trace;
    row.verdict = run_backend(loaded.c, *backend, trace);
    if (row.verdict.status != Status::kPassed) return;
    harness::CompareOptions compare_options;
    compare_options.taps = options.taps;
    compare_options.threads = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
    row.verdict = judge_trace(loaded.c, *backend, trace, compare_options, nullptr);
  });
  const Judgement judgement = judgement_of(row);
  if (judgement == kGood) {
    out << "good: largest error/bound " << harness::format_ratio(row.verdict.worst_ratio());
  } else {
    out << (judgement == kBad ? "bad: " : "cannot be judged: ") << outcome(row) << ", "
        << harness::one_line_reason(row);
  }
  out << std::endl;
  return interrupted() ? int{kInterrupted} : int{judgement};
}

}  // namespace attn::cli
