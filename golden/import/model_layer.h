#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "reference/core/case.h"
#include "reference/core/config.h"

namespace attn::golden {

struct LayerRequest {
  std::string model;  ///< a Hugging Face folder, or a GGUF file
  std::int64_t layer = 0;
  std::int64_t longest_sequence = 0;  ///< keys after the call: chooses longrope's list
  std::int64_t page_size = 128;
};

/// One attention layer of a model: geometry and weights, quantised ones as stored.
struct ImportedLayer {
  AttentionConfig config;
  LayerWeights weights;
  std::string family;              ///< "Llama", as the table of checkpoints calls it
  std::vector<std::string> notes;  ///< where the case is not all of what the model computes
};

/// Reads a layer of a checkpoint whose model_type data/models/checkpoint_names.json knows. Throws
/// Error(kInput), one line naming file and tensor or key, for malformed files and for layers that
/// the family of layers cannot represent; Error(kUsage) for a layer that does not exist.
ImportedLayer import_layer(const LayerRequest& request);

}  // namespace attn::golden
