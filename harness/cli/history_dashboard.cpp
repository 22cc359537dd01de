#include <ostream>
#include <string>

#include "harness/bench/dashboard/page.h"
#include "harness/cli/exit_code.h"
#include "harness/cli/history_verbs.h"
#include "harness/report/format.h"

namespace attn::cli {
namespace {

std::string counted(std::size_t count, const std::string& thing) {
  return harness::format_count(static_cast<std::int64_t>(count)) + " " + thing;
}

}  // namespace

int history_dashboard(const HistoryDashboardOptions& options, const Session& session) {
  check_writable("--output", options.output);
  dashboard::Page page = dashboard::load_page(options.database);
  if (!options.title.empty()) page.title = options.title;
  const std::string html = dashboard::render(page);
  write_output(session, options.output, html);
  std::size_t points = 0;
  for (const dashboard::Series& series : page.series) points += series.points.size();
  session.streams.err << options.output << ": " << counted(page.runs.size(), "runs") << ", "
                      << counted(page.series.size(), "series") << ", "
                      << counted(points, "measurements") << ", "
                      << counted((html.size() + 1023) / 1024, "KiB")
                      << (dashboard::has_charts() ? "" : "; tables only, built without npm")
                      << "\n";
  return kAllPassed;
}

}  // namespace attn::cli
