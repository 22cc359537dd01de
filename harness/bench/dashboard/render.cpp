#include <map>
#include <string>
#include <string_view>

#include "harness/bench/dashboard/assets.h"
#include "harness/bench/dashboard/html.h"
#include "harness/bench/dashboard/page.h"
#include "harness/bench/dashboard/sections.h"
#include "reference/core/error.h"

namespace attn::dashboard {
namespace {

/// Replaces {{name}} by its value, once: values are not looked through again.
std::string fill(std::string_view form, const std::map<std::string, std::string>& values) {
  std::string out;
  while (true) {
    const std::size_t begin = form.find("{{");
    const std::size_t end = form.find("}}", begin);
    if (begin == std::string_view::npos || end == std::string_view::npos) break;
    const std::string name(form.substr(begin + 2, end - begin - 2));
    const auto it = values.find(name);
    if (it == values.end()) throw Error(ErrorKind::kInternal, "page.html names no " + name);
    out.append(form.substr(0, begin)).append(it->second);
    form.remove_prefix(end + 2);
  }
  return out.append(form);
}

std::string summary(const Page& page) {
  std::size_t points = 0;
  for (const Series& series : page.series) points += series.points.size();
  return std::to_string(page.runs.size()) + " runs, " + std::to_string(page.series.size()) +
         " series, " + std::to_string(points) + " measurements";
}

std::string chart_notice() {
  if (has_charts()) return "";
  return "<p class=\"notice\">This page has tables only: attn-compare was built without npm, which "
         "brings the chart library.</p>";
}

/// The notice that the library's licence asks for.
std::string chart_licence() {
  if (!has_charts()) return "";
  return "<details><summary>Charts are drawn by uPlot, MIT licence</summary><pre>" +
         escape(assets::kChartLicence) + "</pre></details>";
}

}  // namespace

bool has_charts() { return !assets::kChartScript.empty(); }

std::string render(const Page& page) {
  return fill(assets::kPageHtml, {{"title", escape(page.title)},
                                  {"generated", escape(short_date(page.generated))},
                                  {"summary", escape(summary(page))},
                                  {"css", std::string(assets::kStyleCss)},
                                  {"chart_css", std::string(assets::kChartCss)},
                                  {"chart_notice", chart_notice()},
                                  {"banner", banner_html(page)},
                                  {"gate", gate_html(page)},
                                  {"changes", changes_html(page)},
                                  {"heat_maps", heat_maps_html(page)},
                                  {"latest", latest_html(page)},
                                  {"environments", environments_html(page)},
                                  {"scores", scores_html(page)},
                                  {"data", data_block(page)},
                                  {"chart_licence", chart_licence()},
                                  {"chart_script", std::string(assets::kChartScript)},
                                  {"script", std::string(assets::kScript)}});
}

}  // namespace attn::dashboard
