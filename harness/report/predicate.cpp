#include "harness/report/predicate.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>
#include <vector>

#include "reference/core/error.h"

namespace attn::harness {
namespace {

using nlohmann::json;

constexpr std::array kKeys = {"batch",
                              "case",
                              "clip_activations",
                              "clip_qkv",
                              "dtype",
                              "entry_point",
                              "group_size",
                              "has_bias",
                              "head_dim",
                              "head_dim_v",
                              "hidden_size",
                              "keys",
                              "kv_cache.dtype",
                              "kv_cache.page_size",
                              "kv_cache.scale_granularity",
                              "kv_head_replication",
                              "logit_softcap",
                              "mask",
                              "mask.align",
                              "mask.chunk_size",
                              "mask.variant",
                              "mask.window_size",
                              "num_attention_heads",
                              "num_devices",
                              "num_key_value_heads",
                              "quant",
                              "quant.activation",
                              "quant.bits",
                              "quant.desc_act",
                              "quant.encoding",
                              "quant.group_size",
                              "quant.sym",
                              "quant.weight_granularity",
                              "queries",
                              "rms_norm_eps",
                              "rope.interleaved",
                              "rope.rotary_dim",
                              "rope.rotary_side",
                              "rope.scaling",
                              "rope.scaling.factor",
                              "rope.scaling.type",
                              "rope.theta",
                              "scale",
                              "sinks",
                              "stacked_qkv",
                              "tokens",
                              "use_qk_norm",
                              "variant"};

void flatten(const json& value, const std::string& name, Facts& facts) {
  if (value.is_boolean()) facts[name] = value.get<bool>();
  if (value.is_number()) facts[name] = value.get<double>();
  if (value.is_string()) facts[name] = value.get<std::string>();
  if (!value.is_object()) return;
  for (const auto& [key, inner] : value.items()) {
    flatten(inner, name.empty() ? key : std::string(name).append(".").append(key), facts);
  }
}

enum class Relation { kEqual, kUnequal, kLess, kLessEqual, kGreater, kGreaterEqual };

bool holds(const Fact& fact, Relation relation, const Fact& value) {
  if (relation == Relation::kEqual) return fact == value;
  if (relation == Relation::kUnequal) return fact != value;
  const double* const a = std::get_if<double>(&fact);
  const double* const b = std::get_if<double>(&value);
  if (a == nullptr || b == nullptr) return false;
  switch (relation) {
    case Relation::kLess:
      return *a < *b;
    case Relation::kLessEqual:
      return *a <= *b;
    case Relation::kGreater:
      return *a > *b;
    default:
      return *a >= *b;
  }
}

/// Recursive descent over the text.
class Parser {
 public:
  explicit Parser(std::string_view text) : all_(text), rest_(text) {}

  Predicate whole() {
    Predicate predicate = any_of();
    skip();
    if (!rest_.empty()) refuse("\"" + std::string(rest_) + "\" is left over");
    return predicate;
  }

 private:
  [[noreturn]] void refuse(const std::string& what) const {
    throw Error(ErrorKind::kInput, "when = '" + std::string(all_) + "': " + what, "when");
  }

  void skip() {
    while (!rest_.empty() && std::isspace(static_cast<unsigned char>(rest_.front())) != 0) {
      rest_.remove_prefix(1);
    }
  }

  bool take(std::string_view word) {
    skip();
    if (!rest_.starts_with(word)) return false;
    rest_.remove_prefix(word.size());
    return true;
  }

  Predicate any_of() {
    Predicate first = all_of();
    while (take("||")) {
      first = [a = std::move(first), b = all_of()](const Facts& f) { return a(f) || b(f); };
    }
    return first;
  }

  Predicate all_of() {
    Predicate first = one();
    while (take("&&")) {
      first = [a = std::move(first), b = one()](const Facts& f) { return a(f) && b(f); };
    }
    return first;
  }

  Predicate one() {
    if (take("(")) {
      Predicate inner = any_of();
      if (!take(")")) refuse("a ( has no )");
      return inner;
    }
    if (take("!")) {
      return [inner = one()](const Facts& f) { return !inner(f); };
    }
    return comparison();
  }

  Predicate comparison() {
    std::string key = word("a key of the config");
    if (std::ranges::find(kKeys, key) == kKeys.end()) {
      refuse("nothing is called \"" + key + "\"" + hint(key, {kKeys.begin(), kKeys.end()}));
    }
    const std::optional<Relation> relation = sign();
    const Fact value = relation ? constant() : Fact(true);
    return [key = std::move(key), relation = relation.value_or(Relation::kEqual),
            value](const Facts& facts) {
      const auto it = facts.find(key);
      return holds(it == facts.end() ? Fact() : it->second, relation, value);
    };
  }

  std::optional<Relation> sign() {
    // Longer signs first, so that <= is not read as <.
    constexpr std::array<std::pair<const char*, Relation>, 6> kSigns = {
        {{"==", Relation::kEqual},
         {"!=", Relation::kUnequal},
         {"<=", Relation::kLessEqual},
         {">=", Relation::kGreaterEqual},
         {"<", Relation::kLess},
         {">", Relation::kGreater}}};
    for (const auto& [text, relation] : kSigns) {
      if (take(text)) return relation;
    }
    return std::nullopt;
  }

  std::string word(const std::string& what) {
    skip();
    const auto is_word = [](char c) {
      return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' || c == '.' || c == '-' ||
             c == '+';
    };
    const auto end = std::ranges::find_if_not(rest_, is_word);
    const std::string found(rest_.begin(), end);
    if (found.empty()) refuse("expected " + what + " before \"" + std::string(rest_) + "\"");
    rest_.remove_prefix(found.size());
    return found;
  }

  Fact constant() {
    skip();
    if (take("\"")) {
      const std::size_t end = rest_.find('"');
      if (end == std::string_view::npos) refuse("a \" has no end");
      std::string text(rest_.substr(0, end));
      rest_.remove_prefix(end + 1);
      return text;
    }
    const std::string text = word("a value");
    if (text == "null") return std::monostate();
    if (text == "true" || text == "false") return text == "true";
    double number = 0.0;
    const auto [stop, failure] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (failure == std::errc() && stop == text.data() + text.size()) return number;
    return text;
  }

  std::string_view all_;
  std::string_view rest_;
};

}  // namespace

Facts facts_of(const Case& c) {
  CaseShape shape{c.id, c.batch(), c.tokens(), 0, 0, c.has_sinks()};
  for (std::int64_t b = 0; b < c.batch(); ++b) {
    shape.keys = std::max(shape.keys, c.key_count(b));
    shape.queries = std::max(shape.queries, c.row_count(b));
  }
  return facts_of(c.config, shape);
}

Facts facts_of(const AttentionConfig& config, const CaseShape& shape) {
  Facts facts;
  flatten(json::parse(to_json(config)), "", facts);
  for (const auto& [name, inner] :
       {std::pair{"mask", "mask.variant"}, std::pair{"quant", "quant.encoding"},
        std::pair{"rope.scaling", "rope.scaling.type"}}) {
    if (const auto it = facts.find(inner); it != facts.end()) facts[name] = it->second;
  }
  const auto number = [](std::int64_t value) { return static_cast<double>(value); };
  facts["head_dim_v"] = number(config.head_dim_v);
  facts["group_size"] = number(config.group_size());
  facts["case"] = shape.name;
  facts["batch"] = number(shape.batch);
  facts["tokens"] = number(shape.tokens);
  facts["keys"] = number(shape.keys);
  facts["queries"] = number(shape.queries);
  facts["sinks"] = shape.sinks;
  return facts;
}

Predicate parse_predicate(std::string_view text) { return Parser(text).whole(); }

}  // namespace attn::harness
