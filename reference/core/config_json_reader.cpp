#include <algorithm>
#include <limits>
#include <set>

#include "reference/core/config_json_reader_internal.h"

namespace attn {
namespace {

using Json = nlohmann::json;

/// Messages quote hostile text: keep them on one line and short.
std::string printable(std::string text, std::size_t longest) {
  for (char& c : text) {
    if (c < ' ' || c > '~') c = '?';
  }
  if (text.size() > longest) text = text.substr(0, longest) + "...";
  return text;
}

}  // namespace

nlohmann::json parse_json(std::string_view text, std::size_t longest) {
  constexpr int kDeepest = 16;
  if (text.size() > longest) {
    refuse("the text", "has " + std::to_string(text.size()) + " bytes; at most " +
                           std::to_string(longest) + " are read");
  }
  std::vector<std::set<std::string>> keys;
  const Json::parser_callback_t check = [&](int depth, Json::parse_event_t event, Json& parsed) {
    if (depth > kDeepest) refuse("the text", "is nested more than 16 deep; a config needs 3");
    if (event == Json::parse_event_t::object_start) keys.emplace_back();
    if (event == Json::parse_event_t::object_end) keys.pop_back();
    if (event == Json::parse_event_t::key) {
      const auto& key = parsed.get_ref<const std::string&>();
      if (!keys.back().insert(key).second) refuse(key, "is given twice; keep one of the two");
    }
    return true;
  };
  try {
    return Json::parse(text.begin(), text.end(), check);
  } catch (const Json::exception& error) {
    refuse("the text", "is not valid JSON: " + printable(error.what(), 200));
  }
}

std::string show(const nlohmann::json& value) {
  if (value.is_structured()) return value.is_array() ? "an array" : "an object";
  return printable(value.dump(), 60);
}

void refuse(const std::string& field, const std::string& problem, const std::string& rule) {
  const std::string name = printable(field, 80);
  throw Error(ErrorKind::kConfig, "config: " + name + " " + problem, name, rule);
}

std::int64_t parse_integer(const std::string& field, const nlohmann::json& value) {
  const bool fits = value.is_number_integer() &&
                    (!value.is_number_unsigned() ||
                     value.get<std::uint64_t>() <= std::numeric_limits<std::int64_t>::max());
  if (!fits) {
    refuse(field, "is " + show(value) +
                      "; it must be an integer below 2^63, written without fraction or exponent");
  }
  return value.get<std::int64_t>();
}

double parse_number(const std::string& field, const nlohmann::json& value) {
  if (!value.is_number()) refuse(field, "is " + show(value) + "; it must be a number");
  return value.get<double>();
}

ObjectReader::ObjectReader(const nlohmann::json& object, std::string path)
    : object_(object), path_(std::move(path)) {
  if (!object.is_object()) {
    refuse(path_.empty() ? "the text" : path_, "is " + show(object) + "; it must be a JSON object");
  }
}

std::string ObjectReader::field(std::string_view key) const {
  return path_.empty() ? std::string(key) : path_ + "." + std::string(key);
}

const nlohmann::json* ObjectReader::find(const char* key) {
  known_.emplace_back(key);
  const auto it = object_.find(key);
  return it == object_.end() || it->is_null() ? nullptr : &*it;
}

const nlohmann::json& ObjectReader::require(const char* key) {
  if (const Json* value = find(key)) return *value;
  refuse(field(key), "is missing; it has no default, give it a value");
}

std::int64_t ObjectReader::require_integer(const char* key) {
  return parse_integer(field(key), require(key));
}

double ObjectReader::require_number(const char* key) {
  return parse_number(field(key), require(key));
}

void ObjectReader::read(const char* key, std::int64_t& target) {
  if (const Json* value = find(key)) target = parse_integer(field(key), *value);
}

void ObjectReader::read(const char* key, double& target) {
  if (const Json* value = find(key)) target = parse_number(field(key), *value);
}

void ObjectReader::read(const char* key, bool& target) {
  const Json* value = find(key);
  if (value == nullptr) return;
  if (!value->is_boolean()) {
    refuse(field(key), "is " + show(*value) + "; it must be true or false");
  }
  target = value->get<bool>();
}

void ObjectReader::read(const char* key, std::vector<double>& target) {
  const Json* value = find(key);
  if (value == nullptr) return;
  if (!value->is_array()) {
    refuse(field(key), "is " + show(*value) + "; it must be an array of numbers");
  }
  target.clear();
  for (const Json& element : *value) target.push_back(parse_number(field(key) + "[]", element));
}

void ObjectReader::finish() const {
  for (const auto& item : object_.items()) {
    if (std::ranges::find(known_, item.key()) == known_.end()) {
      refuse(field(item.key()),
             "= " + show(item.value()) + " is an unknown key" + hint(item.key(), known_), "13");
    }
  }
}

}  // namespace attn
