#pragma once

#include <string>

#include "golden/golden_file.h"
#include "tests/import/files.h"

namespace attn::test {

/// A random attention layer in bfloat16 as a Hugging Face folder: config.json and safetensors. The
/// values of a tensor depend on its projection, not on what it is called.
struct TinyModel {
  static constexpr std::int64_t kHeads = 4, kKvHeads = 2, kDim = 16, kHidden = 64;

  std::string prefix = "model.layers.1.self_attn.";
  std::string output = "o_proj";
  bool fused = false;
  bool bias = false;
  bool output_bias = false;
  bool norm = false;
  std::int64_t norm_width = kDim;
  bool sinks = false;
  std::string leave_out;  ///< a tensor's name behind the prefix
  nlohmann::json config = {{"hidden_size", kHidden},          {"num_attention_heads", kHeads},
                           {"num_key_value_heads", kKvHeads}, {"head_dim", kDim},
                           {"num_hidden_layers", 8},          {"torch_dtype", "bfloat16"}};

  Tensors tensors() const;
  void write_folder(const std::string& folder) const;
  void write_shards(const std::string& folder) const;  ///< a tensor in every other of two shards
  /// The file's weights are the model's, bit for bit.
  void expect_weights_in(const golden::GoldenFile& file) const;
};

/// Rows of `parts` one below the other.
Tensor stack(const std::vector<Tensor>& parts);

/// q_proj, k_proj, v_proj or o_proj of the tiny model, and the bias of one.
Tensor tiny_weight(const std::string& projection, ElementType type = ElementType::kBFloat16);
Tensor tiny_bias(const std::string& projection);

}  // namespace attn::test
