#include "harness/bench/history/json_text.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>

#include "reference/core/error.h"

namespace attn::history {
namespace {

using nlohmann::json;

/// Levels of a context that are flattened; deeper ones are no benchmark's.
constexpr int kMostLevels = 16;

bool is_word(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '+' || c == '-' || c == '.' ||
         c == '_' || c == '#';
}

/// What stands for a token outside strings: null for every spelling of a number that JSON lacks.
std::string_view in_json(std::string_view token) {
  std::string lower;
  for (const char c : token) {
    lower += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  }
  std::string_view bare = lower;
  if (bare.starts_with('-') || bare.starts_with('+')) bare.remove_prefix(1);
  if (bare == "nan" || bare == "inf" || bare == "infinity" || bare == "-nan") return "null";
  double value = 0.0;
  const auto [stop, error] = std::from_chars(lower.data(), lower.data() + lower.size(), value);
  const bool whole = stop == lower.data() + lower.size();
  if (whole && error == std::errc::result_out_of_range) return "null";
  return token;
}

/// The text with such tokens replaced. Places of errors hardly move: a token is shorter than a
/// line.
std::string without_nan(std::string_view text) {
  std::string clean;
  clean.reserve(text.size());
  std::size_t at = 0;
  while (at < text.size()) {
    std::size_t end = at + 1;
    if (text[at] == '"') {
      while (end < text.size() && text[end] != '"') end += text[end] == '\\' ? 2 : 1;
      end = std::min(end + 1, text.size());
      clean += text.substr(at, end - at);
    } else if (is_word(text[at])) {
      while (end < text.size() && is_word(text[end])) ++end;
      clean += in_json(text.substr(at, end - at));
    } else {
      clean += text[at];
    }
    at = end;
  }
  return clean;
}

/// nlohmann's text without its own name, on one line.
std::string reason(const json::exception& error) {
  std::string what = error.what();
  if (const auto end = what.find("] "); end != std::string::npos) what.erase(0, end + 2);
  for (char& c : what) {
    if (static_cast<unsigned char>(c) < ' ') c = ' ';
  }
  constexpr std::size_t kLongest = 200;
  return what.size() > kLongest ? what.substr(0, kLongest) + "..." : what;
}

}  // namespace

void refuse(const std::string& path, const std::string& what) {
  throw Error(ErrorKind::kInput, path + ": " + what, path);
}

json parse_json_file(const std::string& path, std::string_view bytes) {
  json value = json::parse(bytes, nullptr, false);
  if (!value.is_discarded()) return value;
  try {
    return json::parse(without_nan(bytes));
  } catch (const json::exception& error) {
    refuse(path, "is no whole JSON text: " + reason(error));
  }
}

std::string text_of(const json& object, const char* key) {
  const auto it = object.find(key);
  if (it == object.end() || it->is_null()) return "";
  return it->is_string() ? it->get<std::string>() : dump(*it);
}

std::optional<double> number_of(const json& object, const char* key) {
  const auto it = object.find(key);
  if (it == object.end()) return std::nullopt;
  double value = std::nan("");
  if (it->is_number()) {
    value = it->get<double>();
  } else if (it->is_string()) {
    const auto& text = it->get_ref<const std::string&>();
    const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || stop != text.data() + text.size()) value = std::nan("");
  }
  if (!std::isfinite(value)) return std::nullopt;
  return value;
}

std::string dump(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

namespace {

void flatten_at(const json& value, const std::string& path, int level,
                std::map<std::string, std::string>& leaves) {
  const std::string stem = path.empty() ? "" : path + ".";
  if (value.is_structured() && level < kMostLevels) {
    std::size_t place = 0;
    for (const auto& item : value.items()) {
      const std::string name = value.is_object() ? item.key() : std::to_string(place);
      flatten_at(item.value(), stem + name, level + 1, leaves);
      ++place;
    }
  } else if (value.is_string()) {
    leaves[path] = value.get<std::string>();
  } else if (!value.is_null()) {
    leaves[path] = dump(value);
  }
}

}  // namespace

void flatten(const json& value, const std::string& path,
             std::map<std::string, std::string>& leaves) {
  flatten_at(value, path, 0, leaves);
}
}  // namespace attn::history
