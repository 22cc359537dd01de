#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace attn::dashboard {

/// Text with & < > " ' as references: safe between tags and inside quoted attributes.
std::string escape(std::string_view text);

/// Four significant digits: "10.44", "0.9731", "1.2e+06"; "" for NaN.
std::string digits(double value, int significant = 4);

/// "10.44 µs", "1.234 ms", "2.5 s"; "" for NaN.
std::string time_text(double microseconds);

/// "94 %", "7.3 %"; "" for NaN.
std::string percent(double fraction);

/// "1.34×"; "" for NaN.
std::string times(double ratio);

/// "2026-11-22 23:42"; the text itself where it is no such date.
std::string short_date(const std::string& iso);

/// The first characters of a commit, "" for none.
std::string short_commit(const std::string& commit);

/// Two cells, the kernel and the shape as the row's header. The kernel at the begin of a shape's
/// name is shown where the screen has no room for the first cell.
std::string shape_cells(const std::string& shape, const std::string& kernel);

/// <td>, escaped; `sort`: what the column is sorted by, where that is not the text.
std::string cell(std::string_view text, std::string_view css = "");
std::string number_cell(std::string_view text, double sort);

/// <th scope="row">, escaped.
std::string row_header(std::string_view text);

/// Opens a table inside a region that scrolls by itself and that the keyboard reaches. `attributes`
/// are of the table; `columns` are separated by |, a leading # marks a column of numbers.
std::string table_begin(std::string_view id, std::string_view caption, std::string_view columns,
                        std::string_view attributes = "");
std::string table_end();

}  // namespace attn::dashboard
