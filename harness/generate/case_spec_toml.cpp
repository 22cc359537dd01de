#include <toml++/toml.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>

#include "harness/generate/spec_file.h"

namespace attn::harness {
namespace {

using nlohmann::json;

/// The TOML value as the JSON value of the same meaning. TOML has dates, nan and inf besides; no
/// key takes them.
json to_json_value(const toml::node& node, const std::string& name) {
  if (const toml::table* table = node.as_table()) {
    json object = json::object();
    for (const auto& [key, value] : *table) {
      const std::string key_name(key.str());
      object[key_name] = to_json_value(value, key_name);
    }
    return object;
  }
  if (const toml::array* array = node.as_array()) {
    json list = json::array();
    for (const toml::node& value : *array) list.push_back(to_json_value(value, name));
    return list;
  }
  if (const auto* value = node.as_string()) return value->get();
  if (const auto* value = node.as_boolean()) return value->get();
  if (const auto* value = node.as_integer()) {
    // Non-negative numbers have the type that the JSON parser gives them.
    const std::int64_t number = value->get();
    return number < 0 ? json(number) : json(static_cast<std::uint64_t>(number));
  }
  if (const auto* value = node.as_floating_point(); value && std::isfinite(value->get())) {
    return value->get();
  }
  throw Error(ErrorKind::kConfig,
              name + ": a date or a number that is not finite; no key of a case takes one", name);
}

std::string to_json_text(const std::string& toml_text) {
  try {
    return to_json_value(toml::parse(toml_text), "TOML").dump();
  } catch (const toml::parse_error& error) {
    std::ostringstream message;
    message << "line " << error.source().begin.line << ": " << error.description();
    throw Error(ErrorKind::kConfig, message.str(), "TOML");
  }
}

}  // namespace

TomlCase load_toml_case(const std::string& path) {
  return parse_file(path,
                    [](const std::string& text) { return parse_seeded_spec(to_json_text(text)); });
}

}  // namespace attn::harness
