#include "harness/cli/stage_table.h"

#include <cstdio>
#include <ostream>

#include "harness/report/format.h"

namespace attn::cli {

void print_stage_table(std::ostream& out, const harness::Verdict& verdict) {
  if (verdict.stages.empty()) return;
  char line[128];
  std::snprintf(line, sizeof line, "%-9s  %10s  %8s  %11s  %s\n", "stage", "elements", "beyond",
                "error/bound", "worst element");
  out << line;
  constexpr std::size_t kWhereColumn = 46;
  for (const harness::StageReport& stage : verdict.stages) {
    const int length = std::snprintf(
        line, sizeof line, "%-9s  %10s  %8s  %11s  ", std::string(name_of(stage.stage)).c_str(),
        harness::format_count(stage.elements).c_str(), harness::format_count(stage.bad).c_str(),
        harness::format_ratio(stage.worst_ratio).c_str());
    std::string text(line, static_cast<std::size_t>(length));
    text += stage.worst_ratio > 0 ? stage.worst_where : "equal";
    if (stage.weak_bound) text += ", weak bound";
    if (!stage.note.empty()) text += "; " + stage.note;
    out << harness::wrap(text, kWhereColumn) << "\n";
  }
}

void print_row_coverage(std::ostream& out, const harness::Verdict& verdict,
                        const harness::RowSelection& rows) {
  if (rows.all || verdict.rows_checked >= verdict.rows_total) return;
  const auto miss = [&](double share) {
    char text[32];
    std::snprintf(text, sizeof text, "%.2g",
                  harness::miss_probability(verdict.rows_total, rows.random_rows, share));
    return std::string(text);
  };
  out << "\nrows checked: " << harness::format_count(verdict.rows_checked) << " of "
      << harness::format_count(verdict.rows_total) << " (the boundary rows and " << rows.random_rows
      << " random ones)\n"
      << "probability of missing a bug that touches 1 % of the rows: " << miss(0.01)
      << ", 10 % of the rows: " << miss(0.1) << "\n";
}

}  // namespace attn::cli
