#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "harness/bench/dashboard/html.h"
#include "harness/bench/dashboard/sections.h"
#include "harness/report/format.h"

namespace attn::dashboard {
namespace {

/// A share as a bar whose width is the share; the figures stand beside it.
std::string share_cell(double share) {
  if (std::isnan(share)) return "<td>–</td>";
  return "<td class=\"bar\" data-v=\"" + digits(share, 6) +
         "\"><span class=\"track\"><span style=\"width:" +
         digits(100.0 * std::clamp(share, 0.0, 1.0), 4) + "%\"></span></span> " +
         escape(percent(share)) + "</td>";
}

/// Of a number that is 0 where it is not known.
std::string count_cell(std::int64_t count) {
  const double sort =
      count == 0 ? std::numeric_limits<double>::quiet_NaN() : static_cast<double>(count);
  return number_cell(std::to_string(count), sort);
}

/// Score tables of one kind, one for each run that is the last of its machine.
std::vector<std::int64_t> last_runs(const Page& page, const std::string& kind) {
  std::map<std::size_t, std::int64_t> last;
  for (const history::Score& s : page.scores) {
    if (s.kind != kind) continue;
    std::int64_t& run =
        last.try_emplace(page.run_machine[static_cast<std::size_t>(s.run)], -1).first->second;
    run = std::max(run, s.run);
  }
  std::vector<std::int64_t> runs;
  runs.reserve(last.size());
  for (const auto& [machine, run] : last) runs.push_back(run);
  return runs;
}

std::string counted_table(const Page& page, const std::string& kind, std::int64_t run,
                          const std::string& id, const std::string& caption,
                          const std::string& columns) {
  std::string out = table_begin(id, caption, columns, "data-sortable");
  for (const history::Score& s : page.scores) {
    if (s.kind != kind || s.run != run) continue;
    const auto passed = static_cast<double>(s.passed.value_or(0));
    const auto total = static_cast<double>(s.total.value_or(0));
    out += "<tr>" + row_header(s.name) +
           number_cell(harness::format_count(s.passed.value_or(0)), passed) +
           number_cell(harness::format_count(s.total.value_or(0)), total) +
           share_cell(total > 0 ? passed / total : std::numeric_limits<double>::quiet_NaN()) +
           "</tr>\n";
  }
  return out + table_end();
}

/// Names are "TYPE STAGE": stages down, types across.
std::string error_table(const Page& page, std::int64_t run, const std::string& id,
                        const std::string& caption) {
  std::vector<std::string> stages;
  std::set<std::string> types;
  std::map<std::pair<std::string, std::string>, double> values;
  for (const history::Score& s : page.scores) {
    if (s.kind != "error_bound" || s.run != run || !s.value) continue;
    const std::size_t space = s.name.find(' ');
    const std::string type = s.name.substr(0, space);
    const std::string stage = space == std::string::npos ? "" : s.name.substr(space + 1);
    if (std::find(stages.begin(), stages.end(), stage) == stages.end()) stages.push_back(stage);
    types.insert(type);
    values[{stage, type}] = *s.value;
  }
  std::string columns = "Stage";
  for (const std::string& type : types) columns += "|#" + type;
  std::string out = table_begin(id, caption, columns, "data-sortable");
  for (const std::string& stage : stages) {
    out += "<tr>" + row_header(stage);
    for (const std::string& type : types) {
      const auto it = values.find({stage, type});
      out += it == values.end() ? std::string("<td class=\"num\">–</td>")
                                : number_cell(harness::format_ratio(it->second), it->second);
    }
    out += "</tr>\n";
  }
  return out + table_end();
}

std::string run_heading(const Page& page, std::int64_t run) {
  const auto index = static_cast<std::size_t>(run);
  return page.machines[page.run_machine[index]].label() + ", " + run_name(page.runs[index]);
}

using Facts = std::vector<std::pair<std::string, std::string>>;

Facts facts_of(const history::Run& run) {
  return {{"Driver", run.driver},     {"CUDA", run.cuda},        {"Clocks", run.clocks},
          {"Compiler", run.compiler}, {"Build", run.build_type}, {"Libraries", run.libraries}};
}

}  // namespace

std::string environments_html(const Page& page) {
  if (page.runs.empty()) return "<p>No runs.</p>\n";
  std::string out = table_begin("machines-table", "Machines: times are compared only within one",
                                "Machine|GPU|#GPUs|CPU|#CPUs|Caches|#Runs", "data-sortable");
  for (std::size_t m = 0; m < page.machines.size(); ++m) {
    const history::Machine& machine = page.machines[m];
    const auto runs = std::count(page.run_machine.begin(), page.run_machine.end(), m);
    out += "<tr>" + row_header(machine.label()) + cell(machine.gpu) +
           count_cell(machine.gpu_count) + cell(machine.cpu) + count_cell(machine.num_cpus) +
           cell(machine.caches) + number_cell(std::to_string(runs), static_cast<double>(runs)) +
           "</tr>\n";
  }
  out += table_end();
  out += table_begin(
      "environments-table", "When the environment of a machine's runs changed: first run with each",
      "Machine|From run|Program|Driver|CUDA|Clocks|Compiler|Build|Libraries", "data-sortable");
  std::map<std::pair<std::size_t, std::string>, Facts> last;
  for (std::size_t r = 0; r < page.runs.size(); ++r) {
    const history::Run& run = page.runs[r];
    if (run.program.empty()) continue;
    const Facts facts = facts_of(run);
    const auto [it, is_new] = last.try_emplace({page.run_machine[r], run.program}, Facts{});
    if (it->second == facts) continue;
    out += "<tr data-m=\"" + std::to_string(page.run_machine[r]) + "\">" +
           cell(page.machines[page.run_machine[r]].label()) + row_header(run_name(run)) +
           cell(run.program);
    for (std::size_t i = 0; i < facts.size(); ++i) {
      const bool is_changed = !is_new && it->second[i].second != facts[i].second;
      out += cell(facts[i].second.empty() ? "–" : facts[i].second, is_changed ? "changed" : "");
    }
    out += "</tr>\n";
    it->second = facts;
  }
  return out + table_end();
}

std::string scores_html(const Page& page) {
  std::string out;
  for (const std::int64_t run : last_runs(page, "conformance")) {
    out += counted_table(page, "conformance", run, "conformance-" + std::to_string(run),
                         "Random cases judged by the error bound. " + run_heading(page, run),
                         "Way to run the layer|#Passed|#Cases|Share");
  }
  for (const std::int64_t run : last_runs(page, "faults")) {
    out += counted_table(page, "faults", run, "faults-" + std::to_string(run),
                         "Planted bugs that each gate notices. " + run_heading(page, run),
                         "Gate|#Killed|#Planted|Share");
  }
  for (const std::int64_t run : last_runs(page, "error_bound")) {
    out += error_table(
        page, run, "errors-" + std::to_string(run),
        "Largest error/bound by stage and type; 1 is the limit. " + run_heading(page, run));
  }
  return out.empty() ? "<p>No conformance run and no score of planted bugs was imported.</p>\n"
                     : out;
}

}  // namespace attn::dashboard
