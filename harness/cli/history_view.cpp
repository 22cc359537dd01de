#include <cmath>
#include <iomanip>
#include <nlohmann/json.hpp>
#include <ostream>
#include <sstream>

#include "harness/bench/history/series.h"
#include "harness/cli/exit_code.h"
#include "harness/cli/history_json.h"
#include "harness/cli/history_verbs.h"

namespace attn::cli {
namespace {

using nlohmann::json;

std::string title_of(const history::Benchmark& benchmark) {
  std::string title = benchmark.name;
  if (!benchmark.backend.empty()) title += " | " + benchmark.backend;
  return title;
}

std::string signed_percent(double fraction) {
  std::ostringstream text;
  text << std::showpos << std::fixed << std::setprecision(1) << 100.0 * fraction << " %";
  return text.str();
}

json json_of_change(const history::Series& series, const history::ChangePoint& change) {
  const history::Run& run = series.runs[change.index];
  const history::Run& before = series.runs[change.index - 1];
  return {{"index", change.index},
          {"run", run.sha256},
          {"date", run.date},
          {"commit", run.commit},
          {"subject", run.subject},
          {"last_run_before", before.sha256},
          {"last_commit_before", before.commit},
          {"before_ns", change.before},
          {"after_ns", change.after},
          {"size", change.size()},
          {"p", change.p}};
}

void print_change(std::ostream& out, const history::Series& series,
                  const history::ChangePoint& change) {
  const history::Run& run = series.runs[change.index];
  out << "  " << std::left << std::setw(21) << (run.date.empty() ? "no date" : run.date)
      << std::setw(14)
      << (run.commit.empty() ? history::short_name(run) : history::short_commit(run))
      << std::setw(8) << (change.size() > 0 ? "slower" : "faster") << std::right << std::setw(9)
      << signed_percent(change.size()) << "  " << history::format_time(change.before) << " -> "
      << history::format_time(change.after) << "  p " << change.p;
  if (!run.subject.empty()) out << "  " << run.subject;
  out << "\n";
}

}  // namespace

int history_view(const HistoryViewOptions& options, const Session& session) {
  const HistoryReport report(session, options.json);
  history::Database database(options.database);
  history::ChangePointOptions search;
  search.significance = options.significance;
  search.minimum_effect = options.minimum_effect;
  search.permutations = options.permutations;
  search.seed = options.seed;
  std::ostream& out = report.text();
  json list = json::array();
  std::size_t seen = 0;
  std::size_t changed = 0;
  for (const history::Series& series : history::all_series(database)) {
    const std::string title = title_of(series.benchmark);
    if (title.find(options.benchmark) == std::string::npos) continue;
    ++seen;
    const std::vector<history::ChangePoint> changes = history::changes_of(series, search);
    changed += changes.empty() ? 0 : 1;
    if (changes.empty() && !options.all) continue;
    const history::Result& last = series.results.back();
    out << title << " (" << series.benchmark.timer << "), " << series.runs.size()
        << (series.runs.size() == 1 ? " run on " : " runs on ") << series.machine.label()
        << ", last " << history::format_time(*last.median_ns) << "\n";
    json entry{{"benchmark", json_of(series.benchmark)},
               {"machine", series.machine.label()},
               {"runs", series.runs.size()},
               {"last_ns", *last.median_ns},
               {"changes", json::array()}};
    for (const history::ChangePoint& change : changes) {
      print_change(out, series, change);
      entry["changes"].push_back(json_of_change(series, change));
    }
    list.push_back(std::move(entry));
  }
  out << seen << " series, " << changed << " with a change\n";
  return report.finish("history view", {{"database", options.database}, {"series", list}},
                       seen == 0 ? kNothingRan : kAllPassed);
}

}  // namespace attn::cli
