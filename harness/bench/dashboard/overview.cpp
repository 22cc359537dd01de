#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "harness/bench/dashboard/html.h"
#include "harness/bench/dashboard/sections.h"
#include "harness/report/format.h"

namespace attn::dashboard {
namespace {

struct Counts {
  std::size_t regressed = 0, improved = 0, same = 0, ambiguous = 0;
  std::size_t short_of_repetitions = 0;  ///< of the ambiguous ones
};

/// The gate computes no interval from too few repetitions.
bool has_interval(const GateRow& row) { return row.high > 0.0; }

Counts count_gate(const Page& page) {
  Counts counts;
  for (const GateRow& row : page.gate) {
    if (row.verdict == "REGRESSED") ++counts.regressed;
    if (row.verdict == "IMPROVED") ++counts.improved;
    if (row.verdict == "SAME") ++counts.same;
    if (row.verdict != "AMBIGUOUS") continue;
    ++counts.ambiguous;
    if (!has_interval(row)) ++counts.short_of_repetitions;
  }
  return counts;
}

std::string plural(std::size_t count, const std::string& noun) {
  return std::to_string(count) + " " + noun + (count == 1 ? "" : "s");
}

std::string card(const std::string& title, const std::string& figure, const std::string& note,
                 const char* css = "") {
  return "<li class=\"card " + std::string(css) + "\"><span class=\"what\">" + escape(title) +
         "</span> <strong>" + escape(figure) + "</strong> <span class=\"note\">" + escape(note) +
         "</span></li>\n";
}

/// Ours against the best peer, over shapes that both were timed at: geometric mean.
std::string peers_card(const Page& page) {
  double logs = 0.0;
  std::size_t shapes = 0;
  std::size_t ahead = 0;
  for (const Series& series : page.series) {
    const double ratio = series.points.back().peer_ratio;
    if (page.benchmarks[series.benchmark].is_peer || !(ratio > 0.0)) continue;
    logs += std::log(ratio);
    ++shapes;
    if (ratio >= 1.0) ++ahead;
  }
  if (shapes == 0) return card("Best peer", "–", "no peer was timed");
  const double mean = std::exp(logs / static_cast<double>(shapes));
  return card(
      "Against the best peer", times(mean),
      "geometric mean of " + plural(shapes, "shape") + ", ahead at " + std::to_string(ahead),
      mean >= 1.0 ? "good" : "bad");
}

std::string roofline_card(const Page& page) {
  std::vector<double> fractions;
  for (const Series& series : page.series) {
    const double value = series.points.back().roofline;
    if (!page.benchmarks[series.benchmark].is_peer && std::isfinite(value)) {
      fractions.push_back(value);
    }
  }
  if (fractions.empty()) return card("Roofline", "–", "the peak of the device is not known");
  std::sort(fractions.begin(), fractions.end());
  return card(
      "Roofline, median", percent(fractions[fractions.size() / 2]),
      "of " + plural(fractions.size(), "benchmark") + ", best " + percent(fractions.back()));
}

/// The scores of one kind of the last run that has any.
std::vector<history::Score> last_scores(const Page& page, const std::string& kind) {
  std::int64_t last = -1;
  for (const history::Score& s : page.scores) {
    if (s.kind == kind) last = std::max(last, s.run);
  }
  std::vector<history::Score> out;
  for (const history::Score& s : page.scores) {
    if (s.kind == kind && s.run == last) out.push_back(s);
  }
  return out;
}

std::string conformance_card(const Page& page) {
  std::int64_t passed = 0;
  std::int64_t total = 0;
  for (const history::Score& s : last_scores(page, "conformance")) {
    passed += s.passed.value_or(0);
    total += s.total.value_or(0);
  }
  if (total == 0) return card("Conformance", "–", "no conformance run");
  return card("Conformance", harness::format_count(passed) + " of " + harness::format_count(total),
              "random cases passed");
}

std::string faults_card(const Page& page) {
  const history::Score* best = nullptr;
  const std::vector<history::Score> scores = last_scores(page, "faults");
  for (const history::Score& s : scores) {
    if (s.name == "pr" || best == nullptr) best = &s;
  }
  if (best == nullptr || !best->passed || !best->total) {
    return card("Planted bugs", "–", "no score");
  }
  return card("Planted bugs killed",
              std::to_string(*best->passed) + " of " + std::to_string(*best->total),
              "by gate " + best->name, *best->passed == *best->total ? "good" : "");
}

struct Sentence {
  const char* css;
  std::string headline;
  std::string detail;
};

Sentence verdict_of(const Page& page) {
  const Counts counts = count_gate(page);
  std::string others = std::to_string(counts.improved) + " improved, " +
                       std::to_string(counts.same) + " same, " + std::to_string(counts.ambiguous) +
                       " ambiguous";
  if (counts.short_of_repetitions > 0) {
    others += " (" + std::to_string(counts.short_of_repetitions) + " for too few repetitions)";
  }
  if (page.series.empty()) {
    return {"quiet", "Nothing measured yet",
            "The database holds no benchmark: attn-compare history import FILE..."};
  }
  if (page.gate.empty()) {
    return {"quiet", "No verdict",
            "No run has one before it on the same machine and of the same program, so there is "
            "nothing to compare with."};
  }
  if (counts.regressed > 0) {
    return {"bad", "▲ REGRESSED: " + plural(counts.regressed, "benchmark") + " slower", others};
  }
  if (counts.improved > 0) {
    return {"good", "▼ IMPROVED: " + plural(counts.improved, "benchmark") + " faster", others};
  }
  if (counts.ambiguous > counts.same) {
    return {"unsure", "? AMBIGUOUS: the last run cannot tell", others};
  }
  return {"good", "● SAME: no benchmark is slower", others};
}

double known(const GateRow& row, double value) {
  return has_interval(row) ? value : std::numeric_limits<double>::quiet_NaN();
}

}  // namespace

std::string series_name(const Page& page, std::size_t series) {
  const history::Benchmark& b = page.benchmarks[page.series[series].benchmark];
  return b.shape + ", " + b.backend;
}

std::string run_name(const history::Run& run) {
  std::string name = short_date(run.date);
  if (name.empty()) name = run.source_name;
  if (!run.commit.empty()) name += ", " + short_commit(run.commit);
  return name;
}

std::string banner_html(const Page& page) {
  const Sentence verdict = verdict_of(page);
  std::string out = "<div class=\"verdict " + std::string(verdict.css) +
                    "\"><p class=\"headline\">" + escape(verdict.headline) + "</p><p>" +
                    escape(verdict.detail) + "</p>";
  if (!page.gate.empty()) {
    const GateRow& row = page.gate.front();
    out += "<p class=\"note\">Run " + escape(run_name(page.runs[row.candidate])) + " against " +
           escape(run_name(page.runs[row.baseline])) + "</p>";
  }
  out += "</div>\n<ul class=\"cards\">\n";
  return out + peers_card(page) + roofline_card(page) + conformance_card(page) + faults_card(page) +
         "</ul>\n";
}

std::string gate_html(const Page& page) {
  if (page.gate.empty()) {
    return "<p>No run can be compared with one before it. attn-compare history gate compares any "
           "two runs of one machine.</p>\n";
  }
  std::string out = table_begin(
      "gate-table",
      "The last run of each machine and program against the one before "
      "it; the ratio is of times, above 1 is slower",
      "Verdict|Benchmark|#Ratio|#Interval, 99 %|#p, corrected|Why|Run|Against", "data-sortable");
  for (const GateRow& row : page.gate) {
    const Series& series = page.series[row.series];
    std::string css = "v-" + row.verdict;
    out += "<tr data-s=\"" + std::to_string(row.series) + "\" data-m=\"" +
           std::to_string(series.machine) + "\"><td><span class=\"tag " + css + "\">" +
           row.verdict + "</span></td>" + row_header(series_name(page, row.series)) +
           number_cell(digits(row.ratio), row.ratio) +
           number_cell(digits(row.low) + " to " + digits(row.high), known(row, row.low)) +
           number_cell(digits(row.p_value, 2), known(row, row.p_value)) + cell(row.reason) +
           cell(run_name(page.runs[row.candidate])) + cell(run_name(page.runs[row.baseline])) +
           "</tr>\n";
  }
  return out + table_end();
}

std::string changes_html(const Page& page) {
  if (page.changes.empty()) {
    return "<p>No lasting change was found: a change point needs at least five runs before and "
           "after it.</p>\n";
  }
  std::string out = table_begin(
      "changes-table",
      "Runs from which on a benchmark has another level, the latest first (E-Divisive)",
      "When|Benchmark|Direction|#Change of time|#Before|#After|#p|Commit|Subject", "data-sortable");
  for (const Change& change : page.changes) {
    const Series& series = page.series[change.series];
    const history::Run& run = page.runs[change.run];
    const double relative = change.after_us / change.before_us - 1.0;
    const bool is_slower = relative > 0.0;
    out += "<tr data-s=\"" + std::to_string(change.series) + "\" data-m=\"" +
           std::to_string(series.machine) + "\">" + cell(short_date(run.date)) +
           row_header(series_name(page, change.series)) + "<td><span class=\"tag " +
           (is_slower ? "v-REGRESSED\">▲ slower" : "v-IMPROVED\">▼ faster") + "</span></td>" +
           number_cell((is_slower ? "+" : "−") + percent(std::abs(relative)), relative) +
           number_cell(time_text(change.before_us), change.before_us) +
           number_cell(time_text(change.after_us), change.after_us) +
           number_cell(digits(change.p_value, 2), change.p_value) +
           cell(short_commit(run.commit), "code") + cell(run.subject) + "</tr>\n";
  }
  return out + table_end();
}

}  // namespace attn::dashboard
