#include "harness/report/console.h"

#include <algorithm>
#include <ostream>

#include "harness/report/format.h"

namespace attn::harness {
namespace {

constexpr std::size_t kVerdictWidth = 11;
constexpr std::size_t kStageWidth = 9;
constexpr std::size_t kRatioWidth = 11;

/// Left-aligned; a text that is too long keeps its end, which tells file names apart.
std::string left(std::string text, std::size_t width) {
  if (text.size() > width) text = "..." + text.substr(text.size() - width + 3);
  text.resize(width, ' ');
  return text;
}

std::string right(const std::string& text, std::size_t width) {
  return text.size() >= width ? text : std::string(width - text.size(), ' ') + text;
}

/// What the last column adds to a row with figures.
std::string remark(const Verdict& verdict) {
  std::vector<std::string> remarks;
  if (verdict.rows_checked < verdict.rows_total) {
    remarks.push_back(format_count(verdict.rows_checked) + " of " +
                      format_count(verdict.rows_total) + " rows");
  }
  const auto weak = std::count_if(verdict.stages.begin(), verdict.stages.end(),
                                  [](const StageReport& stage) { return stage.weak_bound; });
  if (weak > 0) remarks.push_back("weak bound in " + std::to_string(weak) + " stages");
  std::string text;
  for (const std::string& part : remarks) text += (text.empty() ? "" : ", ") + part;
  return text;
}

}  // namespace

std::string ConsoleTable::coloured(const std::string& text, const ReportRow& row) const {
  if (!options_.colour) return text;
  const char* code = "31";  // red
  if (row.trouble == Trouble::kNone) {
    if (row.verdict.status == Status::kPassed) code = "32";
    if (row.verdict.status == Status::kUnsupported || row.verdict.status == Status::kSkipped ||
        row.verdict.status == Status::kMistrusted || is_waived(row)) {
      code = "33";
    }
  }
  return "\033[" + std::string(code) + "m" + text + "\033[0m";
}

void ConsoleTable::header() {
  out_ << left("case", options_.name_width) << "  " << left("backend", options_.backend_width)
       << "  " << left("verdict", kVerdictWidth) << "  " << left("worst", kStageWidth) << "  "
       << right("error/bound", kRatioWidth) << "\n";
}

void ConsoleTable::row(const ReportRow& row) {
  const StageReport* stage = headline_stage(row.verdict);
  const std::string start =
      left(row.name, options_.name_width) + "  " + left(row.backend, options_.backend_width) + "  ";
  const std::string word(outcome(row));
  if (stage != nullptr) {
    out_ << start << coloured(left(word, kVerdictWidth), row) << "  "
         << left(std::string(name_of(stage->stage)), kStageWidth) << "  "
         << right(format_ratio(stage->worst_ratio), kRatioWidth);
    std::string text = remark(row.verdict);
    if (is_waived(row)) text += (text.empty() ? "" : ", ") + row.waiver;
    if (!text.empty()) out_ << "  " << text;
  } else if (row.verdict.detail.empty()) {
    out_ << start << coloured(word, row);
  } else {
    // "unsupported: reason", wrapped under its own first word.
    const std::string text =
        wrap(std::string(start.size(), ' ') + word + ": " + row.verdict.detail, start.size() + 2);
    out_ << start << coloured(word, row) << text.substr(start.size() + word.size());
  }
  out_ << "\n";
  if (options_.verbose && !row.verdict.stages.empty()) {
    out_ << wrap("    " + stage_ratios(row.verdict), 4) << "\n";
  }
  out_.flush();
}

bool ConsoleTable::needs_account(const ReportRow& row) const {
  if (is_waived(row)) return false;
  if (row.trouble != Trouble::kNone) return true;
  switch (row.verdict.status) {
    case Status::kPassed:
    case Status::kSkipped:
    case Status::kUnsupported:  // its line in the table says all there is
      return false;
    default:
      return true;
  }
}

void ConsoleTable::finish(const Report& report) {
  std::size_t printed = 0;
  std::size_t left_out = 0;
  for (const ReportRow& row : report.rows) {
    if (!needs_account(row)) continue;
    if (printed == options_.max_blocks) {
      ++left_out;
      continue;
    }
    const std::string block = failure_block(row);
    const std::size_t head = block.find(' ');
    out_ << "\n" << coloured(block.substr(0, head), row) << block.substr(head);
    ++printed;
  }
  if (left_out > 0) out_ << "\n... and " << left_out << " more; --json FILE has all of them\n";
  out_ << (report.rows.empty() ? "" : "\n") << to_string(report.tally()) << std::endl;
}

}  // namespace attn::harness
