#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "harness/report/report.h"

namespace attn::harness {

/// Width that every human-readable line is made for.
inline constexpr std::size_t kLineWidth = 100;

/// Shortest text that reads back as the same double; "NaN", "Infinity", "-Infinity".
std::string format_number(double value);

/// Six significant digits, for a reader.
std::string format_short(double value);

/// An error / bound ratio: "0", "0.137", "37.2", "4.1e+06", "inf".
std::string format_ratio(double ratio);

/// "840 us", "12.3 ms", "4.56 s", "3 min 20 s".
std::string format_seconds(double seconds);

/// "1,048,576".
std::string format_count(std::int64_t count);

/// Breaks `text` at spaces so that no line exceeds kLineWidth, later lines indented by `indent`.
std::string wrap(std::string_view text, std::size_t indent);

/// Why a row did not pass, in one line: "attn_out: error/bound 37.2 at row 4, head 1, channel 3",
/// or the verdict's reason.
std::string one_line_reason(const ReportRow& row);

/// "q_proj 0.04, k_proj 0.03, ..., attn_out 37.2".
std::string stage_ratios(const Verdict& verdict);

/// The readable account of a row that did not pass, several lines, the repro line last.
std::string failure_block(const ReportRow& row);

}  // namespace attn::harness
