#include <fstream>
#include <iomanip>
#include <nlohmann/json.hpp>
#include <ostream>
#include <sstream>

#include "harness/bench/history/database.h"
#include "harness/bench/history/export.h"
#include "harness/bench/history/import.h"
#include "harness/bench/history/readers.h"
#include "harness/bench/history/series.h"
#include "harness/cli/exit_code.h"
#include "harness/cli/history_json.h"
#include "harness/cli/history_verbs.h"
#include "harness/report/format.h"
#include "reference/core/error.h"

namespace attn::cli {
namespace {

using nlohmann::json;

std::string counted(std::size_t count, const std::string& thing) {
  return harness::format_count(static_cast<std::int64_t>(count)) + " " + thing +
         (count == 1 ? "" : "s");
}

std::string date_option(const std::string& text) {
  if (text.empty()) return "";
  std::string date = history::utc_date(text);
  if (date.empty()) date = history::utc_date(text + "T00:00:00Z");
  if (date.empty()) {
    throw Error(ErrorKind::kUsage,
                "--date is \"" + text + "\"; write 2026-11-22 or 2026-11-22T23:42:36Z", "--date");
  }
  return date;
}

json json_of(const history::Imported& imported) {
  return {{"file", imported.file},    {"run", imported.sha256},      {"kind", imported.source_kind},
          {"new", imported.is_new},   {"results", imported.results}, {"samples", imported.samples},
          {"scores", imported.scores}};
}

void print(std::ostream& out, const history::Imported& imported) {
  out << imported.file << "  " << imported.sha256.substr(0, 12) << "  " << imported.source_kind;
  if (imported.results > 0) {
    out << ", " << counted(imported.results, "benchmark") << ", "
        << counted(imported.samples, "repetition");
  }
  if (imported.scores > 0) out << ", " << counted(imported.scores, "score");
  out << (imported.is_new ? "" : "  (was there already)") << "\n";
}

}  // namespace

int history_import(const HistoryImportOptions& options, const Session& session) {
  const HistoryReport report(session, options.json);
  Progress progress(session.streams, static_cast<std::int64_t>(options.files.size()), "files");
  const std::vector<history::Imported> all = history::import_files(
      options.database, options.files, {options.commit, options.subject, date_option(options.date)},
      [&](std::size_t done) { progress.update(static_cast<std::int64_t>(done), 0); });
  progress.clear();
  std::size_t added = 0;
  json files = json::array();
  for (const history::Imported& imported : all) {
    // A folder of thousands is summed up by the last line.
    if (all.size() <= 50) print(report.text(), imported);
    added += imported.is_new ? 1 : 0;
    files.push_back(json_of(imported));
  }
  report.text() << counted(added, "run") << " added to " << options.database << ", "
                << all.size() - added << " were there already\n";
  return report.finish("history import", {{"database", options.database}, {"files", files}},
                       kAllPassed);
}

int history_list(const HistoryListOptions& options, const Session& session) {
  const HistoryReport report(session, options.json);
  history::Database database(options.database);
  std::map<std::int64_t, std::size_t> results;
  for (const history::Result& result : database.results()) ++results[result.run];
  json runs = json::array();
  std::ostream& out = report.text();
  out << std::left << std::setw(14) << "run" << std::setw(22) << "date" << std::setw(14) << "commit"
      << std::setw(22) << "program" << std::setw(12) << "benchmarks"
      << "machine\n";
  for (const history::Run& run : database.runs()) {
    out << std::setw(14) << history::short_name(run) << std::setw(22) << run.date << std::setw(14)
        << history::short_commit(run) << std::setw(22) << run.program << std::setw(12)
        << results[run.id] << run.machine.label() << "\n";
    json entry = json_of(run);
    entry["results"] = results[run.id];
    runs.push_back(std::move(entry));
  }
  out << counted(runs.size(), "run") << "\n";
  return report.finish("history list", {{"database", options.database}, {"runs", runs}},
                       runs.empty() ? kNothingRan : kAllPassed);
}

int history_merge(const HistoryMergeOptions& options, const Session& session) {
  const HistoryReport report(session, options.json);
  const history::Merged merged = history::merge_databases(options.from, options.output);
  report.text() << counted(merged.added, "run") << " added to " << options.output << ", "
                << merged.known << " were there already\n";
  return report.finish(
      "history merge",
      {{"database", options.output}, {"added", merged.added}, {"known", merged.known}}, kAllPassed);
}

int history_export(const HistoryExportOptions& options, const Session& session) {
  const std::vector<std::string> formats{"csv", "github-action-benchmark", "bencher", "markdown"};
  if (std::ranges::find(formats, options.format) == formats.end()) {
    throw Error(ErrorKind::kUsage,
                "unknown format \"" + options.format + "\"" + hint(options.format, formats),
                "--format");
  }
  check_writable("--output", options.output);
  history::Database database(options.database);
  std::ostringstream text;
  if (options.format == "csv") {
    std::vector<history::Run> runs = database.runs();
    if (!options.run.empty()) runs = {database.find_run(options.run)};
    history::export_csv(database, runs, options.samples, text);
  } else {
    const history::Run run = database.find_run(options.run.empty() ? "latest" : options.run);
    if (options.format == "bencher") history::export_bencher(database, run, text);
    if (options.format == "markdown") history::export_markdown(database, run, text);
    if (options.format == "github-action-benchmark") {
      history::export_github_action(database, run, text);
    }
  }
  write_output(session, options.output, text.str());
  return kAllPassed;
}

}  // namespace attn::cli
