#include <algorithm>
#include <iterator>
#include <ostream>
#include <utility>

#include "harness/cli/verbs.h"
#include "harness/report/results.h"
#include "harness/report/waivers.h"

namespace attn::cli {

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

  harness::ConsoleTable::Options layout = reporter.table_options();
  for (const harness::ReportRow& row : reporter.report().rows) {
    layout.name_width = std::max(layout.name_width, std::min<std::size_t>(row.name.size(), 44));
    layout.backend_width =
        std::max(layout.backend_width, std::min<std::size_t>(row.backend.size(), 24));
  }
  harness::ConsoleTable table(reporter.text(), layout);
  reporter.text() << merged.verb << ", " << shards.size()
                  << (shards.size() == 1 ? " shard" : " shards") << ", version " << merged.version
                  << ", commit " << merged.commit << "\n\n";
  table.header();
  for (const harness::ReportRow& row : reporter.report().rows) table.row(row);
  table.finish(reporter.report());
  return reporter.finish();
}

}  // namespace attn::cli
