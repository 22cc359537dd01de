#include "harness/report/format.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>

namespace attn::harness {
namespace {

constexpr std::size_t kLabelWidth = 17;

template <typename... Args>
std::string print(const char* format, Args... args) {
  char text[64];
  const int length = std::snprintf(text, sizeof text, format, args...);
  return std::string(text, static_cast<std::size_t>(std::clamp(length, 0, 63)));
}

std::string not_finite(double value) {
  if (std::isnan(value)) return "NaN";
  return value > 0 ? "Infinity" : "-Infinity";
}

/// One labelled line of a failure block.
std::string line(std::string_view label, std::string_view text) {
  std::string start = "  " + std::string(label);
  start.resize(std::max(start.size() + 1, kLabelWidth + 2), ' ');
  return wrap(start + std::string(text), kLabelWidth + 2) + "\n";
}

/// The repro line is meant to be copied whole, so it is never broken.
std::string repro_line(const ReportRow& row) {
  if (row.repro.empty()) return "";
  std::string label = "  reproduce";
  label.resize(kLabelWidth + 2, ' ');
  return label + row.repro + "\n";
}

/// The largest parts of the bound, as shares of it.
std::string bound_shares(const StageReport& stage) {
  std::vector<BoundPart> parts = stage.parts;
  std::stable_sort(parts.begin(), parts.end(),
                   [](const BoundPart& a, const BoundPart& b) { return a.second > b.second; });
  std::string text;
  for (std::size_t i = 0; i < std::min<std::size_t>(parts.size(), 4); ++i) {
    if (parts[i].second < 0.005 * stage.bound) break;
    if (!text.empty()) text += ", ";
    text += parts[i].first + " " + print("%.0f %%", 100.0 * parts[i].second / stage.bound);
  }
  return text;
}

std::string stage_block(const StageReport& stage, bool failed) {
  std::string block;
  const std::string name(name_of(stage.stage));
  if (failed) {
    block += line("first bad stage", name + ": " + format_count(stage.bad) + " of " +
                                         format_count(stage.elements) +
                                         " elements are beyond their bound");
  } else {
    block += line("worst stage", name);
  }
  block += line("error / bound", format_ratio(stage.worst_ratio) + "  (error " +
                                     format_short(std::abs(stage.got - stage.want)) + ", bound " +
                                     format_short(stage.bound) + ")");
  if (!stage.worst_where.empty()) block += line("worst element", stage.worst_where);
  block += line("got", format_number(stage.got));
  block += line("want", format_number(stage.want));
  if (!stage.parts.empty() && stage.bound > 0) {
    block += line("bound made of", bound_shares(stage));
  }
  if (!stage.note.empty()) block += line("note", stage.note);
  return block;
}

}  // namespace

std::string format_number(double value) {
  if (!std::isfinite(value)) return not_finite(value);
  char text[64];
  const auto end = std::to_chars(text, text + sizeof text, value).ptr;
  return std::string(text, end);
}

std::string format_short(double value) {
  return std::isfinite(value) ? print("%.6g", value) : not_finite(value);
}

std::string format_ratio(double ratio) {
  if (std::isnan(ratio)) return "NaN";
  if (std::isinf(ratio)) return "inf";
  if (ratio == 0) return "0";
  if (ratio < 0.001) return "<0.001";
  if (ratio < 10) return print("%.3f", ratio);
  if (ratio < 1e5) return print("%.1f", ratio);
  return print("%.1e", ratio);
}

std::string format_seconds(double seconds) {
  if (seconds < 1e-3) return print("%.0f us", seconds * 1e6);
  if (seconds < 1) return print("%.3g ms", seconds * 1e3);
  if (seconds < 100) return print("%.3g s", seconds);
  const auto whole = static_cast<long long>(seconds);
  return print("%lld min %lld s", whole / 60, whole % 60);
}

std::string format_count(std::int64_t count) {
  std::string digits = std::to_string(count);
  for (std::size_t i = digits.size(); i > 3 && digits[i - 4] != '-';) {
    i -= 3;
    digits.insert(i, 1, ',');
  }
  return digits;
}

std::string wrap(std::string_view text, std::size_t indent) {
  std::string out;
  std::size_t room = kLineWidth;
  while (text.size() > room) {
    std::size_t end = text.rfind(' ', room);
    // A word longer than the line, or nothing but the label before it: it stays whole.
    if (end == std::string_view::npos || text.find_first_not_of(' ') > end) {
      end = text.find(' ', room);
      if (end == std::string_view::npos) break;
    }
    out += text.substr(0, text.find_last_not_of(' ', end) + 1);
    out += '\n';
    out.append(indent, ' ');
    text.remove_prefix(end + 1);
    room = kLineWidth - indent;
  }
  return out.append(text);
}

std::string one_line_reason(const ReportRow& row) {
  const Verdict& verdict = row.verdict;
  const StageReport* stage = headline_stage(verdict);
  if (verdict.status == Status::kFailed && stage != nullptr && verdict.first_bad) {
    return std::string(name_of(stage->stage)) + ": error/bound " +
           format_ratio(stage->worst_ratio) + " at " + stage->worst_where;
  }
  return verdict.detail.empty() ? std::string(outcome(row)) : verdict.detail;
}

std::string stage_ratios(const Verdict& verdict) {
  std::string text;
  for (const StageReport& stage : verdict.stages) {
    if (!text.empty()) text += ", ";
    text += std::string(name_of(stage.stage)) + " " + format_ratio(stage.worst_ratio);
  }
  return text;
}

std::string failure_block(const ReportRow& row) {
  const Verdict& verdict = row.verdict;
  std::string head(outcome(row));
  std::transform(head.begin(), head.end(), head.begin(), [](char c) {
    return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
  });
  std::string block = head + "  " + (row.file.empty() ? row.name : row.file);
  if (!row.backend.empty()) block += "  on " + row.backend;
  block += "\n";
  const StageReport* stage = headline_stage(verdict);
  const bool failed = row.trouble == Trouble::kNone && verdict.status == Status::kFailed;
  if (failed && stage != nullptr && verdict.first_bad) {
    block += stage_block(*stage, failed);
    block += line("all stages", stage_ratios(verdict));
  } else if (!verdict.detail.empty()) {
    block += line("reason", verdict.detail);
  }
  return block + repro_line(row);
}

}  // namespace attn::harness
