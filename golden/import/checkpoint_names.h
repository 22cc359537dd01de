#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace attn::golden {

/// One row of data/models/checkpoint_names.json: how a family of checkpoints names and stores the
/// tensors of its attention layers. The file says what each field means.
struct CheckpointFamily {
  std::string family;
  std::vector<std::string> prefixes;  ///< with {layer}
  std::string q_proj, k_proj, v_proj, o_proj;
  std::string qkv_proj;  ///< fused; "" when separate
  std::string q_norm, k_norm, sinks;
  bool interleaved = false;
  std::string sliding;
  std::int64_t every = 0;
  std::string no_rope;
  std::string local_theta;
  std::string scale;
  std::int64_t scale_by_width_at_layers = 0;
  double norm_weight_offset = 0.0;
  nlohmann::json config_defaults;
};

enum class CheckpointFormat { kHuggingFace, kGguf };

/// The row of a model_type (GGUF: of an architecture). Throws Error(kInput) naming `path` and the
/// nearest known type.
CheckpointFamily find_family(CheckpointFormat format, const std::string& model_type,
                             const std::string& path);

/// GGUF: config.json's key of each metadata key, "{arch}" standing for the architecture. A dot
/// leads into an object.
const nlohmann::json& gguf_metadata_names();

/// Every model_type of the table.
std::vector<std::string> known_model_types(CheckpointFormat format);

}  // namespace attn::golden
