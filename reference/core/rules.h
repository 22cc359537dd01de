#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "reference/core/case.h"
#include "reference/core/config.h"

namespace attn {

/// What a broken rule says.
struct Violation {
  std::string field;    ///< the config key or tensor at fault
  std::string message;  ///< one line: field, value, rule, what to try
};

/// One refused combination of configs. `id` names the row of docs/golden-format.md ("1", "1b", ...).
struct ConfigRule {
  std::string_view id;
  std::string_view summary;
  std::optional<Violation> (*check)(const AttentionConfig&);
};

/// One refused property of a case's tensors (offsets, positions, g_idx, scale shapes, ...).
struct CaseRule {
  std::string_view id;
  std::string_view summary;
  std::optional<Violation> (*check)(const Case&);
};

std::span<const ConfigRule> config_rules();
std::span<const CaseRule> case_rules();

/// validate(case.config), then the names and shapes of every tensor the config needs, then the case
/// rules. Throws Error(kConfig) naming the tensor.
void validate(const Case& c);

/// Rule 15. Strategies are "tensor_parallel" and "replicate"; throws Error(kConfig) for any other, for
/// an empty one (sharding before a strategy is set), and for lists whose length is not the device count.
void check_sharding_strategy(std::string_view strategy);
void check_device_list(std::string_view list_name, std::int64_t list_length, std::int64_t num_devices);

}  // namespace attn
