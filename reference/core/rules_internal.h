#pragma once

#include <array>
#include <charconv>
#include <optional>
#include <span>
#include <string>
#include <type_traits>

#include "reference/core/rules.h"

namespace attn {

/// The parts of the table of configs, in this order: sizes and single values; combinations of the
/// layer's features; quantisation. A rule may rely on the ones before it.
std::span<const ConfigRule> value_rules();
std::span<const ConfigRule> layer_rules();
std::span<const ConfigRule> quant_rules();

/// The parts of the table of cases: the tensors' presence, element types and shapes; what they
/// hold.
std::span<const CaseRule> tensor_rules();
std::span<const CaseRule> content_rules();

/// A value as a message shows it.
template <typename T>
std::string show(const T& value) {
  if constexpr (std::is_same_v<T, bool>) {
    return value ? "true" : "false";
  } else if constexpr (std::is_integral_v<T>) {
    return std::to_string(value);
  } else if constexpr (std::is_floating_point_v<T>) {
    std::array<char, 32> text{};  // the shortest digits that read back as the same value
    return {text.data(), std::to_chars(text.data(), text.data() + text.size(), value).ptr};
  } else {
    std::string text("\"");
    text += value;
    return text += '"';
  }
}

/// "field = value: text" when `broken`; the text says the rule and, behind a semicolon, what to
/// try.
template <typename T>
std::optional<Violation> when(bool broken, const std::string& field, const T& value,
                              const std::string& text) {
  if (!broken) return std::nullopt;
  return Violation{field, field + " = " + show(value) + ": " + text};
}

/// "field = value: text".
inline Violation violation(const std::string& field, const std::string& value,
                           const std::string& text) {
  return {field, field + " = " + value + ": " + text};
}

/// The dataset of cache_lengths.
inline std::string lengths_name(const Case& c) {
  return c.config.starts_at_attention() ? "inputs/kv_lengths" : "inputs/cache_lengths";
}

}  // namespace attn
