#include <algorithm>
#include <iterator>
#include <map>
#include <ostream>
#include <utility>

#include "harness/cli/fault_rows.h"
#include "harness/cli/fuzz_totals.h"
#include "harness/cli/verbs.h"
#include "harness/report/format.h"
#include "harness/report/results.h"
#include "harness/report/waivers.h"

namespace attn::cli {
namespace {

void print_table(Reporter& reporter) {
  const harness::Report& report = reporter.report();
  harness::ConsoleTable::Options layout = reporter.table_options();
  for (const harness::ReportRow& row : report.rows) {
    layout.name_width = std::max(layout.name_width, std::min<std::size_t>(row.name.size(), 44));
    layout.backend_width =
        std::max(layout.backend_width, std::min<std::size_t>(row.backend.size(), 24));
  }
  harness::ConsoleTable table(reporter.text(), layout);
  table.header();
  for (const harness::ReportRow& row : report.rows) table.row(row);
  table.finish(report);
}

/// The word after "--NAME " in the options of a run.
std::string option_word(const std::string& options, const std::string& name) {
  const std::string before = "--" + name + " ";
  const std::size_t at = options.find(before);
  if (at == std::string::npos) return "";
  const std::size_t begin = at + before.size();
  return options.substr(begin, options.find(' ', begin) - begin);
}

void print_faults(const std::vector<harness::ShardResults>& shards,
                  const ReportMergeOptions& options, Reporter& reporter) {
  FaultTotals totals;
  for (const harness::ShardResults& shard : shards) {
    for (const auto& [item, result] : shard.items) totals.add(result);
  }
  std::ostream& out = reporter.text();
  print_fault_rows(out, reporter.report().rows, options.report.verbose);
  totals.print(out, option_word(shards.front().info.options, "gate"));
  out << "\n" << to_string(reporter.report().tally()) << std::endl;
}

void print_fuzz(const std::vector<harness::ShardResults>& shards, const ReportMergeOptions& options,
                Reporter& reporter) {
  FuzzTotals totals;
  std::vector<FailureGroup> groups;
  std::map<std::int64_t, std::int64_t> failures;  // by the item of the first of a group
  for (const harness::ShardResults& shard : shards) {
    for (const auto& [item, result] : shard.items) {
      const FuzzNote note = parse_note(result.note);
      totals.add(result.rows.at(0), note);
      if (!note.account.empty()) groups.push_back(parse_group(note.account));
      if (note.like) ++failures[*note.like];
    }
  }
  for (FailureGroup& group : groups) group.count = failures[group.item];
  groups = merge_groups(std::move(groups));
  std::ostream& out = reporter.text();
  totals.print(out, option_word(shards.front().info.options, "backend"));
  out << FuzzTotals::coverage_line(totals.coverage()) << "\n";
  for (const FailureGroup& group : groups) {
    print_account(out, group);
    if (!options.corpus.empty()) harness::add_to_corpus(options.corpus, corpus_entry(group));
  }
  for (const harness::ReportRow& row : reporter.report().rows) {
    if (row.name.starts_with("waiver ")) out << "\n" << harness::failure_block(row);
  }
  out << "\n" << to_string(reporter.report().tally()) << std::endl;
}

}  // namespace

int report_merge(const ReportMergeOptions& options, const Session& session) {
  std::vector<harness::ShardResults> shards;
  shards.reserve(options.files.size());
  for (const std::string& file : options.files) shards.push_back(harness::read_results(file));
  harness::Report merged = harness::merge_results(shards);
  Reporter reporter(session, options.report, merged.verb);
  reporter.report().allow_unsupported = merged.allow_unsupported;
  const std::string& waivers = shards.front().info.waivers;
  std::vector<harness::ReportRow> complaints =
      harness::Waivers::parse(waivers, "the waivers of the run").complaints(merged.rows, true);
  reporter.report().rows = std::move(merged.rows);
  std::ranges::move(complaints, std::back_inserter(reporter.report().rows));

  reporter.text() << merged.verb << ", " << shards.size()
                  << (shards.size() == 1 ? " shard" : " shards") << ", version " << merged.version
                  << ", commit " << merged.commit << "\n\n";
  if (merged.verb == "faults") {
    print_faults(shards, options, reporter);
  } else if (merged.verb == "fuzz") {
    print_fuzz(shards, options, reporter);
  } else {
    print_table(reporter);
  }
  return reporter.finish();
}

}  // namespace attn::cli
