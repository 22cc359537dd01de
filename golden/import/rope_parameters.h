#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "reference/core/config.h"

namespace attn::golden {

/// Fills config.rope from a model's config: rope_theta, rope_scaling or rope_parameters (which may
/// hold one object a layer type, `layer_type`), partial_rotary_factor. `local_theta` names the key
/// of a theta without scaling, "" for none; `longest` chooses longrope's list. Throws
/// Error(kConfig) for what a RopeConfig cannot say.
void set_rope(const nlohmann::json& model, const std::string& layer_type,
              const std::string& local_theta, std::int64_t longest, AttentionConfig& config,
              std::vector<std::string>& notes);

}  // namespace attn::golden
