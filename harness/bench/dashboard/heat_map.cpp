#include <algorithm>
#include <cmath>
#include <functional>
#include <iterator>
#include <limits>
#include <map>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "harness/bench/dashboard/html.h"
#include "harness/bench/dashboard/sections.h"

namespace attn::dashboard {
namespace {

/// What one of the two maps shows, and its steps from low to high: a value belongs to the first
/// step that it is below.
struct Metric {
  const char* id;
  const char* caption;
  const char* css;
  std::vector<double> steps;
  std::function<double(const Point&)> value;
  std::function<std::string(double)> text;
};

const std::vector<Metric>& metrics() {
  static const std::vector<Metric> kMetrics{
      {"peer",
       "Speed over the fastest peer's in the same run; above 1 is faster than every peer",
       "div",
       {0.6, 0.8, 0.9, 0.97, 1.03, 1.1, 1.25, 1.6},
       [](const Point& p) { return p.peer_ratio; },
       [](double v) { return times(v); }},
      {"roofline",
       "Fraction of the roofline: of the least time that the device's peaks allow",
       "seq",
       {0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.75, 0.9},
       [](const Point& p) { return p.roofline; },
       [](double v) { return percent(v); }},
  };
  return kMetrics;
}

struct Cell {
  double value = std::numeric_limits<double>::quiet_NaN();
  std::size_t series = 0;
  std::size_t run = 0;
};

struct Grid {
  std::vector<std::pair<std::string, std::string>> rows;      ///< kernel, shape
  std::vector<std::string> columns;                           ///< ours first
  std::map<std::pair<std::string, std::string>, Cell> cells;  ///< shape, implementation
};

/// The newest known value of each shape and implementation.
Grid make_grid(const Page& page, std::size_t machine, const Metric& metric) {
  Grid grid;
  std::set<std::string> seen_rows;
  std::map<std::pair<bool, std::string>, std::set<std::string>> shapes_of;
  for (std::size_t s = 0; s < page.series.size(); ++s) {
    const Series& series = page.series[s];
    if (series.machine != machine) continue;
    const history::Benchmark& b = page.benchmarks[series.benchmark];
    const auto known = std::find_if(series.points.rbegin(), series.points.rend(),
                                    [&](const Point& p) { return std::isfinite(metric.value(p)); });
    if (known == series.points.rend()) continue;
    if (seen_rows.insert(b.shape).second) grid.rows.emplace_back(b.kind, b.shape);
    shapes_of[{b.is_peer, b.backend}].insert(b.shape);
    Cell& cell = grid.cells[{b.shape, b.backend}];
    if (std::isnan(cell.value) || known->run >= cell.run) {
      cell = {metric.value(*known), s, known->run};
    }
  }
  std::vector<std::tuple<bool, std::ptrdiff_t, std::string>> order;
  order.reserve(shapes_of.size());
  for (const auto& [column, shapes] : shapes_of) {
    order.emplace_back(column.first, -std::ssize(shapes), column.second);
  }
  std::sort(order.begin(), order.end());
  for (const auto& column : order) grid.columns.push_back(std::get<2>(column));
  return grid;
}

std::string cell_html(const Metric& metric, const Cell* cell) {
  if (cell == nullptr) return "<td class=\"num none\">–</td>";
  const auto step = std::upper_bound(metric.steps.begin(), metric.steps.end(), cell->value) -
                    metric.steps.begin();
  return "<td class=\"num heat " + std::string(metric.css) + std::to_string(step) + "\" data-s=\"" +
         std::to_string(cell->series) + "\" data-v=\"" + digits(cell->value, 6) + "\">" +
         escape(metric.text(cell->value)) + "</td>";
}

std::string legend_html(const Metric& metric) {
  std::string out = "<p class=\"legend\" aria-hidden=\"true\">";
  for (std::size_t i = 0; i <= metric.steps.size(); ++i) {
    const bool is_last = i == metric.steps.size();
    out += "<span class=\"heat " + std::string(metric.css) + std::to_string(i) + "\">" +
           (is_last ? "≥ " : "&lt; ") + metric.text(metric.steps[is_last ? i - 1 : i]) + "</span>";
  }
  return out + "</p>\n";
}

std::string map_html(const Page& page, std::size_t machine, const Metric& metric) {
  const std::string id = std::string("heat-") + metric.id + "-" + std::to_string(machine);
  std::string out = "<div class=\"heatmap\" data-m=\"" + std::to_string(machine) +
                    "\" data-metric=\"" + metric.id + "\">\n";
  const Grid grid = make_grid(page, machine, metric);
  if (grid.rows.empty()) {
    return out + "<p>" + escape(page.machines[machine].label()) + ": " +
           (std::string(metric.id) == "peer"
                ? "no run timed a peer beside ours.</p></div>\n"
                : "no run says its fraction of the roofline, and the peaks of this device are not "
                  "known.</p></div>\n");
  }
  std::string columns = "Kernel|Shape";
  for (const std::string& column : grid.columns) columns += "|#" + column;
  out += table_begin(id, std::string(metric.caption) + ". " + page.machines[machine].label(),
                     columns, "class=\"grid\" data-sortable");
  for (const auto& [kernel, shape] : grid.rows) {
    out += "<tr>" + shape_cells(shape, kernel);
    for (const std::string& column : grid.columns) {
      const auto it = grid.cells.find({shape, column});
      out += cell_html(metric, it == grid.cells.end() ? nullptr : &it->second);
    }
    out += "</tr>\n";
  }
  return out + table_end() + legend_html(metric) + "</div>\n";
}

}  // namespace

std::string heat_maps_html(const Page& page) {
  std::string out;
  for (const Metric& metric : metrics()) {
    for (std::size_t m = 0; m < page.machines.size(); ++m) {
      const bool has_series = std::any_of(page.series.begin(), page.series.end(),
                                          [&](const Series& s) { return s.machine == m; });
      if (has_series) out += map_html(page, m, metric);
    }
  }
  return out.empty() ? "<p>Nothing was timed.</p>\n" : out;
}

}  // namespace attn::dashboard
