#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <string>
#include <tuple>

#include "harness/bench/dashboard/html.h"
#include "harness/bench/dashboard/sections.h"

namespace attn::dashboard {
namespace {

constexpr std::size_t kSparkPoints = 40;

/// The last medians as a small line; the change beside it says the same in words.
std::string sparkline(const Series& series) {
  if (series.points.size() < 2) return "<td class=\"spark\">–</td>";
  const std::size_t count = std::min(kSparkPoints, series.points.size());
  const auto first = series.points.end() - static_cast<std::ptrdiff_t>(count);
  double low = std::numeric_limits<double>::infinity();
  double high = -low;
  for (auto p = first; p != series.points.end(); ++p) {
    low = std::min(low, p->median_us);
    high = std::max(high, p->median_us);
  }
  // A flat series stays flat: half a percent is not the whole height.
  const double span = std::max(high - low, 0.05 * high);
  const double middle = 0.5 * (low + high);
  std::string path;
  std::size_t i = 0;
  for (auto p = first; p != series.points.end(); ++p, ++i) {
    const double x = 2.0 + 76.0 * static_cast<double>(i) / static_cast<double>(count - 1);
    const double y = 10.0 - 16.0 * (p->median_us - middle) / span;
    path.append(1, i == 0 ? 'M' : 'L').append(digits(x, 4)).append(1, ' ').append(digits(y, 4));
  }
  return "<td class=\"spark\"><svg viewBox=\"0 0 80 20\" width=\"80\" height=\"20\" "
         "aria-hidden=\"true\" focusable=\"false\"><path d=\"" +
         path + "\"/></svg></td>";
}

std::string change_cell(const Series& series) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  if (series.points.size() < 2) return number_cell("", nan);
  const Point& now = series.points.back();
  const Point& before = *(series.points.end() - 2);
  const double change = now.median_us / before.median_us - 1.0;
  return number_cell((change < 0.0 ? "−" : "+") + percent(std::abs(change)), change);
}

std::string band_text(const Point& point) {
  if (std::isnan(point.low_us)) return "";
  return time_text(point.low_us) + " – " + time_text(point.high_us);
}

using Names = std::map<std::tuple<std::size_t, std::string, std::string>, int>;

/// How often each implementation of a shape is there: by several programs or timers.
Names count_names(const Page& page) {
  Names names;
  for (const Series& series : page.series) {
    const history::Benchmark& b = page.benchmarks[series.benchmark];
    ++names[{series.machine, b.shape, b.backend}];
  }
  return names;
}

std::string implementation(const Page& page, const Series& series, const Names& names) {
  const history::Benchmark& b = page.benchmarks[series.benchmark];
  if (names.at({series.machine, b.shape, b.backend}) == 1) return b.backend;
  return b.backend + " (" + b.program + ", " + b.timer + ")";
}

}  // namespace

std::string latest_html(const Page& page) {
  if (page.series.empty()) return "<p>Nothing was timed.</p>\n";
  const Names names = count_names(page);
  std::string out = table_begin(
      "latest-table",
      "The last measurement of every benchmark: median of its repetitions and the 95 % band of the "
      "median",
      "Kernel|Shape|Implementation|#Median|#Band|#n|#Against the run before|#TFLOP/s|#GB/s|"
      "#Roofline|#Against best peer|#Error/bound|Trend|Run",
      "data-sortable");
  for (std::size_t s = 0; s < page.series.size(); ++s) {
    const Series& series = page.series[s];
    const history::Benchmark& b = page.benchmarks[series.benchmark];
    const Point& p = series.points.back();
    out += "<tr data-s=\"" + std::to_string(s) + "\" data-m=\"" + std::to_string(series.machine) +
           "\">" + shape_cells(b.shape, b.kind) +
           cell(implementation(page, series, names), b.is_peer ? "peer" : "ours") +
           number_cell(time_text(p.median_us), p.median_us) +
           number_cell(band_text(p), p.high_us - p.low_us) +
           number_cell(std::to_string(p.samples), static_cast<double>(p.samples)) +
           change_cell(series) + number_cell(digits(p.tflops), p.tflops) +
           number_cell(digits(p.gbps), p.gbps) + number_cell(percent(p.roofline), p.roofline) +
           number_cell(times(p.peer_ratio), p.peer_ratio) +
           number_cell(digits(p.error_bound, 3), p.error_bound) + sparkline(series) +
           cell(short_date(page.runs[p.run].date)) + "</tr>\n";
  }
  return out + table_end();
}

}  // namespace attn::dashboard
