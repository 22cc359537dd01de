#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <memory>
#include <ostream>
#include <thread>

#include "golden/golden_file.h"
#include "harness/backends/backend.h"
#include "harness/cli/interrupt.h"
#include "harness/cli/judge.h"
#include "harness/cli/stage_table.h"
#include "harness/cli/tensor_diff.h"
#include "harness/cli/verbs.h"
#include "harness/fuzz/case_source.h"
#include "harness/report/format.h"
#include "reference/core/error.h"

namespace attn::cli {
namespace {

using harness::Backend;
using harness::ReportRow;
using harness::Status;
using harness::Verdict;

void check_options(const RunOptions& options) {
  if (options.bitwise && options.against.empty()) {
    throw Error(ErrorKind::kUsage, "--bitwise compares two backends: add --against BACKEND",
                "--bitwise");
  }
  if (options.force && options.write.empty()) {
    throw Error(ErrorKind::kUsage, "--force belongs to --write FILE", "--force");
  }
  if (options.write.empty()) return;
  check_writable("--write", options.write);
  if (!options.force && std::filesystem::exists(options.write)) {
    throw Error(ErrorKind::kUsage,
                "--write " + options.write + ": the file exists; --force overwrites it", "--write");
  }
}

ReportRow row_of(const LoadedCase& loaded, const RunOptions& options, const std::string& backend) {
  ReportRow row;
  row.name = loaded.c.id;
  row.file = loaded.file;
  row.backend = backend;
  row.repro = "attn-compare run " + loaded.words + " --backend " + shell_quote(options.backend);
  if (!options.against.empty()) row.repro += " --against " + shell_quote(options.against);
  if (options.bitwise) row.repro += " --bitwise";
  if (options.exec != "plain") row.repro += " --exec " + options.exec;
  if (!options.taps) row.repro += " --no-taps";
  if (options.rows != "all") row.repro += " --rows " + options.rows;
  row.repro += repro_words(options.isolation);
  return row;
}

void write_trace(const LoadedCase& loaded, const RunOptions& options, const Session& session,
                 const Trace& trace) {
  golden::WriteOptions write;
  write.force = options.force;
  write.command_line = session.command_line;
  write.generator = "attn-compare run, backend " + options.backend;
  write.precision = "backend";
  write.seed = options.source.seed.value_or(0);
  golden::write(golden::make(loaded.c, trace, write), options.write, options.force);
  session.streams.err << "wrote " << options.write << "\n";
}

/// One stage of two backends, bit for bit.
harness::StageReport bitwise_stage(Stage stage, const Tensor& a, const Tensor& b) {
  const TensorDiff diff = diff_tensors(a, b);
  harness::StageReport report;
  report.stage = stage;
  report.elements = diff.elements;
  report.bad = diff.differing;
  if (diff.differing > 0) {
    report.worst_ratio = std::numeric_limits<double>::infinity();
    report.worst_where = "element " + index_text(a.shape(), diff.where);
    report.got = diff.a;
    report.want = diff.b;
  }
  return report;
}

Verdict compare_bitwise(const Trace& a, const Trace& b) {
  Verdict verdict;
  for (const Stage stage : all_stages()) {
    if (!a.has(stage) || !b.has(stage)) continue;
    verdict.stages.push_back(bitwise_stage(stage, a[stage], b[stage]));
    if (verdict.stages.back().bad > 0 && !verdict.first_bad) verdict.first_bad = stage;
  }
  if (verdict.stages.empty()) {
    verdict.status = Status::kSkipped;
    verdict.detail = "the two backends have no stage in common";
  } else if (verdict.first_bad) {
    verdict.status = Status::kFailed;
    verdict.detail = std::string(name_of(*verdict.first_bad)) + " is not equal bit for bit";
  }
  return verdict;
}

/// "largest difference between cpu and exact: ..." for each stage that both have.
void print_differences(std::ostream& out, const RunOptions& options, const Trace& a,
                       const Trace& b) {
  const bool comparable =
      std::ranges::any_of(all_stages(), [&](Stage stage) { return a.has(stage) && b.has(stage); });
  if (!comparable) {
    out << "\n" << options.backend << " and " << options.against << " have no stage in common\n";
    return;
  }
  out << "\nlargest difference between " << options.backend << " and " << options.against << "\n";
  for (const Stage stage : all_stages()) {
    if (!a.has(stage) || !b.has(stage)) continue;
    const TensorDiff diff = diff_tensors(a[stage], b[stage]);
    std::string name(name_of(stage));
    name.resize(10, ' ');
    out << "  " << name
        << (diff.differing == 0 ? "identical"
                                : harness::format_short(diff.largest) + "  at element " +
                                      index_text(a[stage].shape(), diff.where) + ", " +
                                      harness::format_count(diff.differing) + " of " +
                                      harness::format_count(diff.elements) + " differ")
        << "\n";
  }
}

harness::ExecMode parse_exec(const std::string& text) {
  const std::vector<harness::ExecMode> modes = harness::parse_exec_modes(text);
  if (modes.size() == 1) return modes.front();
  throw Error(ErrorKind::kUsage, "--exec " + text + ": run takes one mode; fuzz takes several",
              "--exec");
}

/// The case that is run before this one, in modes that do that.
std::optional<Case> make_other(const LoadedCase& loaded, harness::ExecMode mode) {
  if (!needs_other_case(mode)) return std::nullopt;
  if (!loaded.spec) {
    throw Error(ErrorKind::kUsage,
                "--exec " + std::string(name_of(mode)) +
                    " needs a second case, which is made from a config: give --config",
                "--exec");
  }
  const harness::OtherCase other =
      harness::other_case(*loaded.spec, loaded.seed, mode == harness::ExecMode::kGraphReplay);
  return harness::make_case(other.spec, other.seed);
}

/// The pieces of one `run`, in the order in which they are printed.
class Run {
 public:
  Run(const RunOptions& options, const Session& session)
      : options_(options),
        session_(session),
        reporter_(session, options.report, "run"),
        backend_(open_backend(options.backend, options.isolation)),
        loaded_(load_case(options.source)),
        mode_(parse_exec(options.exec)),
        other_(make_other(loaded_, mode_)) {
    if (!options.against.empty()) against_ = open_backend(options.against, options.isolation);
    compare_options_.taps = options.taps;
    compare_options_.rows = parse_rows(options.rows, options.source.seed.value_or(1));
    compare_options_.threads = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
    compare_options_.explain = options.report.verbose;
  }

  int execute() {
    if (options_.bitwise) {
      run_bitwise();
    } else {
      const Trace first = run_and_judge(*backend_, options_.backend, true);
      if (against_) {
        const Trace second = run_and_judge(*against_, options_.against, false);
        print_differences(reporter_.text(), options_, first, second);
      }
    }
    harness::ConsoleTable(reporter_.text(), reporter_.table_options()).finish(reporter_.report());
    if (interrupted()) session_.streams.err << "interrupted\n";
    return reporter_.finish();
  }

 private:
  void print_title(const std::string& backend, const std::string& how) {
    std::ostream& out = reporter_.text();
    if (!reporter_.report().rows.empty()) out << "\n";
    out << harness::wrap(loaded_.c.id + " on " + backend + ", " + how, 2) << "\n\n";
  }

  Verdict run(const Backend& backend, Trace& trace) const {
    return run_backend(loaded_.c, backend, trace, mode_, other_ ? &*other_ : nullptr);
  }

  Trace run_and_judge(const Backend& backend, const std::string& spec, bool write) {
    ReportRow row = row_of(loaded_, options_, spec);
    Trace trace;
    guarded(row, [&] { row.verdict = run(backend, trace); });
    const double run_seconds = row.seconds;
    const bool ran =
        row.trouble == harness::Trouble::kNone && row.verdict.status == Status::kPassed;
    // Before the comparison, which may fail: the file is what one then wants to look at.
    if (ran && write && !options_.write.empty()) write_trace(loaded_, options_, session_, trace);
    if (ran) {
      guarded(row, [&] {
        row.verdict = judge_trace(loaded_.c, backend, trace, compare_options_, nullptr);
      });
    }
    row.properties.emplace_back("backend_seconds", run_seconds);
    print_title(spec, std::string("against the exact reference, ") +
                          (options_.taps ? "each stage on the backend's own previous one"
                                         : "bounds propagated from the inputs"));
    print_stage_table(reporter_.text(), row.verdict);
    print_row_coverage(reporter_.text(), row.verdict, compare_options_.rows);
    print_reason(row);
    reporter_.report().rows.push_back(std::move(row));
    return trace;
  }

  void run_bitwise() {
    ReportRow row = row_of(loaded_, options_, options_.backend + " = " + options_.against);
    guarded(row, [&] {
      Trace first;
      Trace second;
      row.verdict = run(*backend_, first);
      if (row.verdict.status != Status::kPassed) return;
      if (!options_.write.empty()) write_trace(loaded_, options_, session_, first);
      row.verdict = run(*against_, second);
      if (row.verdict.status != Status::kPassed) return;
      row.verdict = compare_bitwise(first, second);
    });
    print_title(options_.backend, "bit for bit against " + options_.against);
    print_stage_table(reporter_.text(), row.verdict);
    print_reason(row);
    reporter_.report().rows.push_back(std::move(row));
  }

  void print_reason(const ReportRow& row) {
    if (row.verdict.stages.empty() && row.verdict.status == Status::kUnsupported) {
      reporter_.text() << harness::wrap("unsupported: " + row.verdict.detail, 2) << "\n";
    }
  }

  const RunOptions& options_;
  const Session& session_;
  Reporter reporter_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Backend> against_;
  LoadedCase loaded_;
  harness::ExecMode mode_;
  std::optional<Case> other_;
  harness::CompareOptions compare_options_;
};

}  // namespace

int run(const RunOptions& options, const Session& session) {
  check_options(options);
  const InterruptGuard guard;
  return Run(options, session).execute();
}

}  // namespace attn::cli
