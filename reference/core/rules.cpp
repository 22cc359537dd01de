#include "reference/core/rules.h"

#include "reference/core/error.h"
#include "reference/core/rules_internal.h"

namespace attn {
namespace {

/// Throws the first rule that `subject` breaks.
template <typename Rule, typename Subject>
void apply(std::span<const Rule> rules, const Subject& subject) {
  for (const Rule& rule : rules) {
    if (const std::optional<Violation> violation = rule.check(subject)) {
      throw Error(ErrorKind::kConfig, violation->message, violation->field, std::string(rule.id));
    }
  }
}

/// The tables' parts, in order.
template <typename Rule>
std::vector<Rule> join(std::initializer_list<std::span<const Rule>> parts) {
  std::vector<Rule> rules;
  for (const std::span<const Rule> part : parts)
    rules.insert(rules.end(), part.begin(), part.end());
  return rules;
}

}  // namespace

std::span<const ConfigRule> config_rules() {
  static const std::vector<ConfigRule> kRules =
      join<ConfigRule>({value_rules(), layer_rules(), quant_rules()});
  return kRules;
}

std::span<const CaseRule> case_rules() {
  static const std::vector<CaseRule> kRules = join<CaseRule>({tensor_rules(), content_rules()});
  return kRules;
}

void validate(const AttentionConfig& config) { apply(config_rules(), config); }

void validate(const Case& c) {
  validate(c.config);
  apply(case_rules(), c);
}

void check_sharding_strategy(std::string_view strategy) {
  const std::vector<std::string> known{"tensor_parallel", "replicate"};
  const std::string field = "sharding_strategy";
  if (strategy.empty()) {
    throw Error(ErrorKind::kConfig,
                field + " = \"\": a layer has no shards before a strategy is set; set " + known[0] +
                    " or " + known[1],
                field, "15a");
  }
  for (const std::string& name : known) {
    if (strategy == name) return;
  }
  throw Error(
      ErrorKind::kConfig,
      field + " = \"" + std::string(strategy) + "\": an unknown strategy" + hint(strategy, known),
      field, "15b");
}

void check_device_list(std::string_view list_name, std::int64_t list_length,
                       std::int64_t num_devices) {
  if (list_length == num_devices) return;
  const std::string field(list_name);
  throw Error(ErrorKind::kConfig,
              field + ".length = " + std::to_string(list_length) +
                  ": needs one entry for each of the num_devices = " + std::to_string(num_devices) +
                  " devices; give as many",
              field, "15c");
}

}  // namespace attn
