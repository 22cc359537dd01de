#pragma once

#include <string>
#include <string_view>

#include "harness/report/report.h"

namespace attn::harness {

/// The version of the JSON layout below; it grows when a field is renamed, removed or changes
/// meaning.
inline constexpr int kReportSchemaVersion = 1;

/// One JSON object: schema_version, tool, verb, command_line, exit_code, interrupted, seconds,
/// summary (counts by outcome) and rows. docs/cli.md lists the fields. NaN and infinities are the
/// strings "NaN", "Infinity" and "-Infinity".
std::string to_json(const Report& report);

/// One of its rows, on one line.
std::string to_json_line(const ReportRow& row);

/// The row that to_json_line wrote. Throws Error(kInput).
ReportRow parse_json_row(std::string_view line);

/// JUnit XML: one testsuite, one testcase a row, classname "attn-compare.VERB.BACKEND". Failed,
/// mistrusted and not allowed unsupported rows are failures; crashed, timed out, unreadable and
/// internal ones errors; allowed unsupported ones skipped.
std::string to_junit(const Report& report);

/// Writes `text` to the file, through a temporary file and a rename, so that an interrupted run
/// leaves the old one or the new one. Throws Error(kInput).
void write_text_file(const std::string& path, const std::string& text);

}  // namespace attn::harness
