#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

namespace attn::history {

/// A file's JSON. Bare NaN, Infinity and numbers beyond double, which benchmark programs print
/// though JSON has none, become null. Throws Error(kInput) naming file, line and column.
nlohmann::json parse_json_file(const std::string& path, std::string_view bytes);

/// Refuses a file: one line.
[[noreturn]] void refuse(const std::string& path, const std::string& what);

/// A member as text: strings as they are, numbers and booleans as JSON writes them; "" when absent.
std::string text_of(const nlohmann::json& object, const char* key);

/// A member that is a finite number, or the text of one (nvbench writes numbers as texts).
std::optional<double> number_of(const nlohmann::json& object, const char* key);

/// On one line; bytes that are no UTF-8 become U+FFFD.
std::string dump(const nlohmann::json& value);

/// Every leaf under `value` by its path: {"caches.0.size", "49152"}.
void flatten(const nlohmann::json& value, const std::string& path,
             std::map<std::string, std::string>& leaves);

}  // namespace attn::history
