#include "harness/report/report.h"

#include <algorithm>

namespace attn::harness {

bool is_waived(const ReportRow& row) {
  if (row.waiver.empty() || row.trouble != Trouble::kNone) return false;
  const Status status = row.verdict.status;
  return status == Status::kFailed || status == Status::kCrashed || status == Status::kTimedOut;
}

std::string_view outcome(const ReportRow& row) {
  if (is_waived(row)) return "waived";
  switch (row.trouble) {
    case Trouble::kUnreadable:
      return "unreadable";
    case Trouble::kInternal:
      return "internal";
    case Trouble::kNone:
      break;
  }
  return name_of(row.verdict.status);
}

void Tally::add(const ReportRow& row) {
  if (row.trouble != Trouble::kNone) {
    ++(row.trouble == Trouble::kUnreadable ? unreadable : internal);
    return;
  }
  if (is_waived(row)) {
    ++waived;
    return;
  }
  switch (row.verdict.status) {
    case Status::kPassed:
      ++passed;
      break;
    case Status::kFailed:
      ++failed;
      break;
    case Status::kUnsupported:
      ++unsupported;
      break;
    case Status::kSkipped:
      ++skipped;
      break;
    case Status::kMistrusted:
      ++mistrusted;
      break;
    case Status::kCrashed:
      ++crashed;
      break;
    case Status::kTimedOut:
      ++timed_out;
      break;
  }
}

std::string to_string(const Tally& tally) {
  std::string text =
      std::to_string(tally.passed) + " passed, " + std::to_string(tally.failed) + " failed";
  const std::pair<std::int64_t, const char*> others[] = {
      {tally.unsupported, " unsupported"}, {tally.skipped, " skipped"},
      {tally.mistrusted, " mistrusted"},   {tally.crashed, " crashed"},
      {tally.timed_out, " timed out"},     {tally.waived, " waived"},
      {tally.unreadable, " unreadable"},   {tally.internal, " internal errors"}};
  for (const auto& [count, what] : others) {
    if (count > 0) text += ", " + std::to_string(count) + what;
  }
  return text;
}

Tally Report::tally() const {
  Tally tally;
  for (const ReportRow& row : rows) tally.add(row);
  return tally;
}

const StageReport* headline_stage(const Verdict& verdict) {
  if (verdict.stages.empty()) return nullptr;
  if (verdict.first_bad) {
    for (const StageReport& stage : verdict.stages) {
      if (stage.stage == *verdict.first_bad) return &stage;
    }
  }
  return &*std::max_element(
      verdict.stages.begin(), verdict.stages.end(),
      [](const StageReport& a, const StageReport& b) { return a.worst_ratio < b.worst_ratio; });
}

}  // namespace attn::harness
