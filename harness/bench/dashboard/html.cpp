#include "harness/bench/dashboard/html.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>

namespace attn::dashboard {

std::string escape(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string digits(double value, int significant) {
  if (std::isnan(value)) return "";
  char text[32];
  // Plain notation where it is short: 1044 rather than 1.044e+03.
  const double size = std::abs(value);
  if (size >= 1e-3 && size < 1e6) {
    const int whole = static_cast<int>(std::floor(std::log10(size))) + 1;
    std::snprintf(text, sizeof text, "%.*f", std::max(0, significant - whole), value);
  } else {
    std::snprintf(text, sizeof text, "%.*g", significant, value);
  }
  return text;
}

std::string time_text(double microseconds) {
  if (std::isnan(microseconds)) return "";
  if (microseconds >= 1e6) return digits(microseconds / 1e6) + " s";
  if (microseconds >= 1e3) return digits(microseconds / 1e3) + " ms";
  return digits(microseconds) + " µs";
}

std::string percent(double fraction) {
  if (std::isnan(fraction)) return "";
  char text[32];
  std::snprintf(text, sizeof text, std::abs(fraction) < 0.0995 ? "%.1f %%" : "%.0f %%",
                100.0 * fraction);
  return text;
}

std::string times(double ratio) {
  if (std::isnan(ratio)) return "";
  char text[32];
  std::snprintf(text, sizeof text, ratio < 9.995 ? "%.2f×" : "%.1f×", ratio);
  return text;
}

std::string short_date(const std::string& iso) {
  if (iso.size() < 16 || iso[10] != 'T') return iso;
  return iso.substr(0, 10) + " " + iso.substr(11, 5);
}

std::string short_commit(const std::string& commit) { return commit.substr(0, 8); }

std::string shape_cells(const std::string& shape, const std::string& kernel) {
  const bool begins_so = !kernel.empty() && shape.rfind(kernel + " ", 0) == 0;
  const std::string rest = begins_so ? shape.substr(kernel.size() + 1) : shape;
  const std::string hidden = begins_so ? "<span class=\"k\">" + escape(kernel) + " </span>" : "";
  return "<td class=\"kernel\">" + escape(kernel) + "</td><th scope=\"row\">" + hidden +
         escape(rest) + "</th>";
}

std::string cell(std::string_view text, std::string_view css) {
  std::string out = "<td";
  if (!css.empty()) out += " class=\"" + std::string(css) + "\"";
  return out + ">" + escape(text) + "</td>";
}

std::string number_cell(std::string_view text, double sort) {
  if (std::isnan(sort)) return "<td class=\"num\">–</td>";
  return "<td class=\"num\" data-v=\"" + digits(sort, 6) + "\">" + escape(text) + "</td>";
}

std::string row_header(std::string_view text) {
  return "<th scope=\"row\">" + escape(text) + "</th>";
}

std::string table_begin(std::string_view id, std::string_view caption, std::string_view columns,
                        std::string_view attributes) {
  std::string out = "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-labelledby=\"";
  out.append(id).append("-caption\"><table id=\"").append(id).append("\"");
  if (!attributes.empty()) out.append(" ").append(attributes);
  out.append("><caption id=\"").append(id).append("-caption\"><span>").append(escape(caption));
  out += "</span></caption><thead><tr>";
  while (!columns.empty()) {
    const std::size_t bar = std::min(columns.find('|'), columns.size());
    std::string_view name = columns.substr(0, bar);
    columns.remove_prefix(std::min(bar + 1, columns.size()));
    const bool is_number = name.substr(0, 1) == "#";
    if (is_number) name.remove_prefix(1);
    const char* css = is_number ? " class=\"num\"" : name == "Kernel" ? " class=\"kernel\"" : "";
    out.append("<th scope=\"col\"").append(css).append(">");
    out += escape(name) + "</th>";
  }
  return out + "</tr></thead><tbody>\n";
}

std::string table_end() { return "</tbody></table></div>\n"; }

}  // namespace attn::dashboard
