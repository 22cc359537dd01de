#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "golden/import/checkpoint_names.h"
#include "golden/import/model_layer.h"
#include "golden/import/tensor_file.h"

namespace attn::golden {

/// A model's files, opened; nothing but headers and config are read.
struct Model {
  std::unique_ptr<TensorFile> tensors;
  nlohmann::json config;    ///< config.json; for GGUF files the metadata under config.json's keys
  std::string config_path;  ///< for messages
  CheckpointFormat format = CheckpointFormat::kHuggingFace;
  CheckpointFamily family;
};

/// Opens a folder or a GGUF file. GGUF arrays with an element per layer give that of `layer`.
Model open_model(const std::string& path, std::int64_t layer);

/// The geometry that the config says: heads, dims, rope, mask, scale, caps. What the tensors say
/// (dtype, bias, norm, quantisation) is left as it is.
AttentionConfig geometry_of(const Model& model, const LayerRequest& request,
                            std::vector<std::string>& notes);

}  // namespace attn::golden
