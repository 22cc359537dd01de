#include "harness/bench/dashboard/judgement.h"

#include <algorithm>
#include <array>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "harness/bench/history/change_points.h"
#include "harness/bench/history/gate.h"
#include "reference/core/error.h"

namespace attn::dashboard {
namespace {

// Change points are looked for in the newest runs only: the search takes time with the square of
// their number. attn-compare history view looks at all.
constexpr std::size_t kChangeWindow = 120;
constexpr std::int64_t kPermutations = 199;

int rank(const GateRow& row) {
  constexpr std::array<std::string_view, 3> kOrder{"REGRESSED", "IMPROVED", "AMBIGUOUS"};
  return static_cast<int>(std::find(kOrder.begin(), kOrder.end(), row.verdict) - kOrder.begin());
}

std::vector<bool> measured_runs(const Page& page) {
  std::vector<bool> measured(page.runs.size());
  for (const Series& series : page.series) {
    for (const Point& point : series.points) measured[point.run] = true;
  }
  return measured;
}

/// None where the runs have no benchmark in common.
std::vector<history::Comparison> compare(const Page& page, history::Database& database,
                                         std::size_t baseline, std::size_t candidate) {
  try {
    return history::compare_runs(database, {page.runs[candidate], ""}, {page.runs[baseline], ""});
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kUsage) throw;
    return {};
  }
}

void add_rows(Page& page, history::Database& database, std::size_t baseline,
              std::size_t candidate) {
  std::map<std::int64_t, std::size_t> series_of;
  for (std::size_t s = 0; s < page.series.size(); ++s) {
    const Series& series = page.series[s];
    const bool is_timed = std::any_of(series.points.begin(), series.points.end(),
                                      [&](const Point& p) { return p.run == candidate; });
    if (is_timed) series_of[page.benchmarks[series.benchmark].id] = s;
  }
  for (const history::Comparison& row : compare(page, database, baseline, candidate)) {
    const auto it = series_of.find(row.benchmark.id);
    if (it == series_of.end()) continue;
    page.gate.push_back({it->second, baseline, candidate, history::name_of(row.verdict), row.ratio,
                         row.low, row.high, row.q, row.reason});
  }
}

}  // namespace

void add_changes(Page& page) {
  history::ChangePointOptions options;
  options.permutations = kPermutations;
  options.minimum_effect = 0.02;
  for (std::size_t s = 0; s < page.series.size(); ++s) {
    const std::vector<Point>& points = page.series[s].points;
    const std::size_t first = points.size() - std::min(points.size(), kChangeWindow);
    std::vector<double> medians;
    for (std::size_t i = first; i < points.size(); ++i) medians.push_back(points[i].median_us);
    for (const history::ChangePoint& c : history::change_points(medians, options)) {
      page.changes.push_back({s, points[first + c.index].run, c.before, c.after, c.p});
    }
  }
  std::stable_sort(page.changes.begin(), page.changes.end(),
                   [](const Change& a, const Change& b) { return a.run > b.run; });
}

void add_gate(Page& page, history::Database& database) {
  const std::vector<bool> measured = measured_runs(page);
  std::map<std::pair<std::size_t, std::string>, std::vector<std::size_t>> runs;
  for (std::size_t i = 0; i < page.runs.size(); ++i) {
    if (measured[i]) runs[{page.run_machine[i], page.runs[i].program}].push_back(i);
  }
  for (const auto& [key, list] : runs) {
    if (list.size() >= 2) add_rows(page, database, list[list.size() - 2], list.back());
  }
  std::stable_sort(page.gate.begin(), page.gate.end(),
                   [](const GateRow& a, const GateRow& b) { return rank(a) < rank(b); });
}

}  // namespace attn::dashboard
