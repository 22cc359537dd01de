#include <array>
#include <cstdio>
#include <cstdlib>
#include <iomanip>
#include <nlohmann/json.hpp>
#include <ostream>

#include "harness/bench/history/commands.h"
#include "harness/bench/history/counts.h"
#include "harness/bench/history/import.h"
#include "harness/bench/history/series.h"
#include "harness/cli/exit_code.h"
#include "harness/cli/history_json.h"
#include "harness/cli/history_verbs.h"
#include "reference/core/error.h"

namespace attn::cli {
namespace {

using history::Comparison;
using history::GateSide;
using history::GateVerdict;
using nlohmann::json;

constexpr const char* kRerunVariable = "ATTN_RERUN";

struct Sides {
  GateSide candidate;
  GateSide baseline;
};

/// "latest@cuda:splits=3"
GateSide side_of(history::Database& database, const std::string& reference) {
  const std::size_t at = reference.find('@');
  GateSide side;
  if (at != std::string::npos) side.backend = reference.substr(at + 1);
  side.run = database.find_run(reference.substr(0, at));
  return side;
}

/// The newest run whose file was imported with this SHA.
history::Run run_with(history::Database& database, const std::string& sha256) {
  return database.find_run(sha256);
}

bool has_changed(const Comparison& c) {
  return c.verdict == GateVerdict::kRegressed || c.verdict == GateVerdict::kImproved;
}

class Gate {
 public:
  Gate(const HistoryGateOptions& options, const Session& session)
      : options_(options), session_(session), report_(session, options.json) {}

  int run() {
    check_options();
    const Sides sides = by_commands() ? measure(options_.gate.seed) : named();
    std::vector<Comparison> comparisons = compare(sides);
    confirm(sides, comparisons);
    count(sides, comparisons);
    print(sides, comparisons);
    return finish(sides, comparisons);
  }

 private:
  bool by_commands() const { return !options_.candidate_command.empty(); }

  void check_options() const {
    const bool names = !options_.candidate.empty() || !options_.baseline.empty();
    const bool commands = by_commands() || !options_.baseline_command.empty();
    if (names == commands) {
      throw Error(ErrorKind::kUsage,
                  "name two runs (--candidate, --baseline) or two programs (--candidate-command, "
                  "--baseline-command)");
    }
    const bool whole = names ? !options_.candidate.empty() && !options_.baseline.empty()
                             : by_commands() && !options_.baseline_command.empty();
    if (!whole) throw Error(ErrorKind::kUsage, "a candidate and a baseline are needed, not one");
    if (!options_.rerun.empty() && commands) {
      throw Error(ErrorKind::kUsage,
                  "--rerun is for named runs; two programs are run again anyway");
    }
    if (options_.instructions && names && options_.rerun.empty()) {
      throw Error(ErrorKind::kUsage, "--instructions needs something to run: --rerun or commands");
    }
  }

  Sides named() const {
    history::Database database(options_.database);
    Sides sides{side_of(database, options_.candidate), side_of(database, options_.baseline)};
    const bool backends = !sides.candidate.backend.empty() && !sides.baseline.backend.empty();
    if (!options_.rerun.empty() && !backends) {
      throw Error(ErrorKind::kUsage,
                  "--rerun times both sides in one process, so both need their @BACKEND");
    }
    return sides;
  }

  /// Both programs in turns, imported.
  Sides measure(std::uint64_t seed) const {
    const history::TemporaryFolder folder;
    const std::string candidate = folder / "candidate.json";
    const std::string baseline = folder / "baseline.json";
    Progress progress(session_.streams, options_.rounds, "rounds");
    history::run_rounds(
        {options_.candidate_command, options_.baseline_command, options_.rounds, seed}, candidate,
        baseline, [&](std::int64_t done) { progress.update(done, 0); });
    progress.clear();
    const auto imported = history::import_files(options_.database, {candidate, baseline}, {});
    history::Database database(options_.database);
    return {{run_with(database, imported.at(0).sha256), ""},
            {run_with(database, imported.at(1).sha256), ""}};
  }

  /// One process that times both.
  Sides measure_again(const Sides& sides) const {
    const history::TemporaryFolder folder;
    const std::string file = folder / "rerun.json";
    ::setenv(kRerunVariable, file.c_str(), 1);
    history::run_command(options_.rerun);
    const auto imported = history::import_files(options_.database, {file}, {});
    history::Database database(options_.database);
    const history::Run run = run_with(database, imported.at(0).sha256);
    return {{run, sides.candidate.backend}, {run, sides.baseline.backend}};
  }

  std::vector<Comparison> compare(const Sides& sides) const {
    history::Database database(options_.database);
    return history::compare_runs(database, sides.candidate, sides.baseline, options_.gate);
  }

  void confirm(const Sides& sides, std::vector<Comparison>& comparisons) {
    if (std::ranges::none_of(comparisons, has_changed)) return;
    if (!by_commands() && options_.rerun.empty()) return;
    history::confirm(comparisons, compare(by_commands() ? measure(options_.gate.seed + 1)
                                                        : measure_again(sides)));
    was_rerun_ = true;
  }

  void count(const Sides& sides, std::vector<Comparison>& comparisons) const {
    const auto is_open = [](const Comparison& c) { return c.verdict == GateVerdict::kAmbiguous; };
    if (!options_.instructions || std::ranges::none_of(comparisons, is_open)) return;
    if (by_commands()) {
      history::apply_counts(comparisons, sides.baseline,
                            history::count_instructions(options_.candidate_command),
                            history::count_instructions(options_.baseline_command), options_.gate);
    } else {
      const TemporaryRerun unused_output;
      const auto counts = history::count_instructions(options_.rerun);
      history::apply_counts(comparisons, sides.baseline, counts, counts, options_.gate);
    }
  }

  /// The command's own report, when only its counts are wanted.
  class TemporaryRerun {
   public:
    TemporaryRerun() { ::setenv(kRerunVariable, (folder_ / "counted.json").c_str(), 1); }

   private:
    history::TemporaryFolder folder_;
  };

  void print(const Sides& sides, const std::vector<Comparison>& comparisons) const {
    std::ostream& out = report_.text();
    for (const auto& [word, side] :
         {std::pair{"candidate", &sides.candidate}, std::pair{"baseline ", &sides.baseline}}) {
      out << word << "  " << history::short_name(side->run);
      if (!side->backend.empty()) out << " " << side->backend;
      if (!side->run.commit.empty()) out << ", commit " << history::short_commit(side->run);
      if (!side->run.date.empty()) out << ", " << side->run.date;
      out << "\n";
    }
    out << "on " << sides.candidate.run.machine.label() << "\n\n";
    print_environment(sides);
    for (const Comparison& c : comparisons) print(out, c);
    out << "\n";
  }

  void print_environment(const Sides& sides) const {
    const history::Run& a = sides.baseline.run;
    const history::Run& b = sides.candidate.run;
    const auto tell = [&](const char* what, const std::string& old, const std::string& now) {
      if (old != now) report_.text() << "other " << what << ": " << old << " -> " << now << "\n";
    };
    tell("driver", a.driver, b.driver);
    tell("CUDA", a.cuda, b.cuda);
    tell("clocks", a.clocks, b.clocks);
    tell("compiler", a.compiler, b.compiler);
    tell("build type", a.build_type, b.build_type);
    tell("libraries", a.libraries, b.libraries);
  }

  static void print(std::ostream& out, const Comparison& c) {
    std::array<char, 160> numbers{};
    if (c.high > 0.0) {
      std::snprintf(numbers.data(), numbers.size(), "  %.4f [%.4f, %.4f]  p %.2g, q %.2g", c.ratio,
                    c.low, c.high, c.p, c.q);
    }
    out << std::left << std::setw(10) << history::name_of(c.verdict) << " " << c.benchmark.name
        << "\n           " << history::format_time(c.baseline_median) << " -> "
        << history::format_time(c.candidate_median) << numbers.data() << "; " << c.reason << "\n";
  }

  static json json_of_comparison(const Comparison& c) {
    json value{{"benchmark", json_of(c.benchmark)},
               {"verdict", history::name_of(c.verdict)},
               {"reason", c.reason},
               {"baseline_samples", c.baseline_samples},
               {"candidate_samples", c.candidate_samples},
               {"baseline_median_ns", c.baseline_median},
               {"candidate_median_ns", c.candidate_median},
               {"ratio", c.ratio},
               {"low", c.low},
               {"high", c.high},
               {"p", c.p},
               {"q", c.q}};
    if (c.instruction_ratio) value["instruction_ratio"] = *c.instruction_ratio;
    return value;
  }

  int finish(const Sides& sides, const std::vector<Comparison>& comparisons) const {
    json list = json::array();
    json counts = json::object();
    std::string line;
    for (const GateVerdict verdict : {GateVerdict::kRegressed, GateVerdict::kImproved,
                                      GateVerdict::kSame, GateVerdict::kAmbiguous}) {
      const auto number = std::ranges::count(comparisons, verdict, &Comparison::verdict);
      counts[history::name_of(verdict)] = number;
      line.append(line.empty() ? "" : ", ").append(std::to_string(number)).append(" ");
      line.append(history::name_of(verdict));
    }
    report_.text() << line << (was_rerun_ ? " (measured twice)" : "") << "\n";
    for (const Comparison& c : comparisons) list.push_back(json_of_comparison(c));
    const bool regressed =
        std::ranges::count(comparisons, GateVerdict::kRegressed, &Comparison::verdict) > 0;
    return report_.finish("history gate",
                          {{"database", options_.database},
                           {"candidate", json_of(sides.candidate.run)},
                           {"baseline", json_of(sides.baseline.run)},
                           {"rerun", was_rerun_},
                           {"verdicts", counts},
                           {"comparisons", list}},
                          regressed ? kComparisonFailed : kAllPassed);
  }

  const HistoryGateOptions& options_;
  const Session& session_;
  HistoryReport report_;
  bool was_rerun_ = false;
};

}  // namespace

int history_gate(const HistoryGateOptions& options, const Session& session) {
  return Gate(options, session).run();
}

}  // namespace attn::cli
