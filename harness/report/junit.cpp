#include <algorithm>
#include <cstdio>

#include "harness/report/format.h"
#include "harness/report/writers.h"

namespace attn::harness {
namespace {

/// Length of the UTF-8 sequence at the start of `text`, 0 when it is none.
std::size_t utf8_length(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  std::size_t length = 1;
  if (byte(0) >= 0xf0 && byte(0) < 0xf5) {
    length = 4;
  } else if (byte(0) >= 0xe0) {
    length = 3;
  } else if (byte(0) >= 0xc2) {
    length = 2;
  } else if (byte(0) >= 0x80) {
    return 0;
  }
  if (text.size() < length || byte(0) >= 0xf5) return 0;
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
  }
  return length;
}

/// Escapes text for attributes and elements. What XML 1.0 cannot hold (control characters, bytes
/// that are not UTF-8) becomes '?': names and messages may come from a hostile file.
std::string escape(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const std::size_t length = utf8_length(text);
    const std::string_view c = text.substr(0, std::max<std::size_t>(length, 1));
    if (c == "&") {
      out += "&amp;";
    } else if (c == "<") {
      out += "&lt;";
    } else if (c == ">") {
      out += "&gt;";
    } else if (c == "\"") {
      out += "&quot;";
    } else if (c == "\n") {
      out += "&#10;";
    } else if (length == 0 || static_cast<unsigned char>(c[0]) < 0x20 || c == "\x7f") {
      out += '?';
    } else {
      out += c;
    }
    text.remove_prefix(c.size());
  }
  return out;
}

std::string attribute(std::string_view name, std::string_view value) {
  std::string text = " ";
  return text.append(name).append("=\"").append(escape(value)).append("\"");
}

std::string seconds_text(double seconds) {
  char text[32];
  std::snprintf(text, sizeof text, "%.6f", seconds);
  return text;
}

enum class Kind { kPassed, kFailure, kError, kSkipped };

Kind kind_of(const ReportRow& row, bool allow_unsupported) {
  if (row.trouble != Trouble::kNone) return Kind::kError;
  if (is_waived(row)) return Kind::kSkipped;
  switch (row.verdict.status) {
    case Status::kPassed:
      return Kind::kPassed;
    case Status::kFailed:
    case Status::kMistrusted:
      return Kind::kFailure;
    case Status::kUnsupported:
      return allow_unsupported ? Kind::kSkipped : Kind::kFailure;
    case Status::kSkipped:
      return Kind::kSkipped;
    case Status::kCrashed:
    case Status::kTimedOut:
      break;
  }
  return Kind::kError;
}

std::string property_text(const PropertyValue& value) {
  if (const auto* integer = std::get_if<std::int64_t>(&value)) return std::to_string(*integer);
  if (const auto* real = std::get_if<double>(&value)) return format_number(*real);
  return std::get<std::string>(value);
}

std::string outcome_element(const ReportRow& row, Kind kind) {
  const std::string waived = is_waived(row) ? "waived, " + row.waiver + ": " : "";
  const std::string message = attribute("message", waived + one_line_reason(row));
  if (kind == Kind::kSkipped) return "      <skipped" + message + "/>\n";
  const std::string tag = kind == Kind::kError ? "error" : "failure";
  return "      <" + tag + message + attribute("type", outcome(row)) + ">" +
         escape(failure_block(row)) + "</" + tag + ">\n";
}

std::string testcase(const Report& report, const ReportRow& row) {
  std::string classname = "attn-compare." + report.verb;
  if (!row.backend.empty()) classname += "." + row.backend;
  std::string xml =
      "    <testcase" + attribute("classname", classname) + attribute("name", row.name);
  if (!row.file.empty()) xml += attribute("file", row.file);
  xml += attribute("time", seconds_text(row.seconds)) + ">\n";
  if (!row.properties.empty()) {
    xml += "      <properties>\n";
    for (const auto& [name, value] : row.properties) {
      xml += "        <property" + attribute("name", name) +
             attribute("value", property_text(value)) + "/>\n";
    }
    xml += "      </properties>\n";
  }
  const Kind kind = kind_of(row, report.allow_unsupported);
  if (kind != Kind::kPassed) xml += outcome_element(row, kind);
  return xml + "    </testcase>\n";
}

}  // namespace

std::string to_junit(const Report& report) {
  std::int64_t failures = 0;
  std::int64_t errors = 0;
  std::int64_t skipped = 0;
  for (const ReportRow& row : report.rows) {
    const Kind kind = kind_of(row, report.allow_unsupported);
    failures += kind == Kind::kFailure;
    errors += kind == Kind::kError;
    skipped += kind == Kind::kSkipped;
  }
  const std::string counts = attribute("tests", std::to_string(report.rows.size())) +
                             attribute("failures", std::to_string(failures)) +
                             attribute("errors", std::to_string(errors)) +
                             attribute("skipped", std::to_string(skipped)) +
                             attribute("time", seconds_text(report.seconds));
  std::string xml = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites" + counts + ">\n";
  xml += "  <testsuite" + attribute("name", "attn-compare " + report.verb) + counts + ">\n";
  for (const ReportRow& row : report.rows) xml += testcase(report, row);
  return xml + "  </testsuite>\n</testsuites>\n";
}

}  // namespace attn::harness
