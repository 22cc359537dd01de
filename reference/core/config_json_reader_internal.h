#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "reference/core/config_names_internal.h"
#include "reference/core/error.h"

namespace attn {

/// Parses text, refusing what the JSON library lets pass: repeated keys, deep nesting, huge texts.
nlohmann::json parse_json(std::string_view text, std::size_t longest = std::size_t{1} << 20);

/// A value as a one-line message shows it: printable, and cut when long.
std::string show(const nlohmann::json& value);

/// Throws "config: FIELD PROBLEM". The field may be a key of hostile text; it is made printable.
[[noreturn]] void refuse(const std::string& field, const std::string& problem,
                         const std::string& rule = "");

std::int64_t parse_integer(const std::string& field, const nlohmann::json& value);
double parse_number(const std::string& field, const nlohmann::json& value);

template <typename E>
E parse_name(const std::string& field, const nlohmann::json& value, Names<E> names) {
  const std::vector<std::string> known = words(names);
  if (!value.is_string()) {
    refuse(field, "is " + show(value) + "; it must be a string" + hint("", known), "13");
  }
  const auto& word = value.get_ref<const std::string&>();
  for (const auto& [name, named] : names) {
    if (name == word) return named;
  }
  refuse(field, "is " + show(value) + ", an unknown name" + hint(word, known), "13");
}

/// Hands out the members of one JSON object, checks their types and remembers which keys exist, so
/// that finish() can refuse the others. An absent or null member leaves the target as it is.
class ObjectReader {
 public:
  /// `path` names the object in messages, "" at the root. `object` must outlive the reader.
  ObjectReader(const nlohmann::json& object, std::string path);

  std::string field(std::string_view key) const;
  /// The member, or null when it is absent or null.
  const nlohmann::json* find(const char* key);
  const nlohmann::json& require(const char* key);
  std::int64_t require_integer(const char* key);
  double require_number(const char* key);

  void read(const char* key, std::int64_t& target);
  void read(const char* key, double& target);
  void read(const char* key, bool& target);
  void read(const char* key, std::vector<double>& target);
  template <typename T>
  void read(const char* key, std::optional<T>& target) {
    if (find(key) != nullptr) read(key, target.emplace());
  }
  template <typename E>
  void read(const char* key, E& target, Names<std::type_identity_t<E>> names) {
    if (const nlohmann::json* value = find(key)) target = parse_name(field(key), *value, names);
  }

  /// Refuses every key that nothing asked for.
  void finish() const;

 private:
  const nlohmann::json& object_;
  std::string path_;
  std::vector<std::string> known_;
};

}  // namespace attn
