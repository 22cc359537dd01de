#include "reference/core/rules.h"

#include "reference/core/error.h"

namespace attn {

std::span<const ConfigRule> config_rules() { return {}; }
std::span<const CaseRule> case_rules() { return {}; }

void validate(const AttentionConfig& config) {
  for (const ConfigRule& rule : config_rules()) {
    if (const auto violation = rule.check(config)) {
      throw Error(ErrorKind::kConfig, violation->message, violation->field, std::string(rule.id));
    }
  }
}

void validate(const Case& c) {
  validate(c.config);
  for (const CaseRule& rule : case_rules()) {
    if (const auto violation = rule.check(c)) {
      throw Error(ErrorKind::kConfig, violation->message, violation->field, std::string(rule.id));
    }
  }
}

void check_sharding_strategy(std::string_view strategy) {
  if (strategy == "tensor_parallel" || strategy == "replicate") return;
  if (strategy.empty()) {
    throw Error(
        ErrorKind::kConfig,
        "sharding strategy is not set; set it to tensor_parallel or replicate before sharding",
        "sharding_strategy", "15a");
  }
  throw Error(ErrorKind::kConfig,
              "sharding strategy \"" + std::string(strategy) + "\" is unknown" +
                  hint(strategy, {"tensor_parallel", "replicate"}),
              "sharding_strategy", "15b");
}

void check_device_list(std::string_view list_name, std::int64_t list_length,
                       std::int64_t num_devices) {
  if (list_length == num_devices) return;
  throw Error(ErrorKind::kConfig,
              std::string(list_name) + " has " + std::to_string(list_length) +
                  " entries; it needs one for each of the num_devices = " +
                  std::to_string(num_devices) + " devices",
              std::string(list_name), "15c");
}

}  // namespace attn
