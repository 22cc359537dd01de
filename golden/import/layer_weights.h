#pragma once

#include <string>
#include <vector>

#include "golden/import/model_geometry.h"

namespace attn::golden {

/// Reads the layer's weights and what they say of the config: dtype, bias, norm, sinks, stacking,
/// quantisation. Throws Error(kInput or kConfig).
LayerWeights read_layer_weights(const Model& model, std::int64_t layer, AttentionConfig& config,
                                std::vector<std::string>& notes);

/// The same bytes under another shape of as many elements.
Tensor reshaped(const Tensor& tensor, const Shape& shape);

/// `tensor` in the shape and one of the types of `spec`, when that changes no value; else throws
/// Error(kInput) naming `path` and `where`.
Tensor fit(const Tensor& tensor, const TensorSpec& spec, const std::string& path,
           const std::string& where);

}  // namespace attn::golden
