#include "tests/import/tiny_model.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace attn::test {
namespace {

std::int64_t rows_of(const std::string& projection) {
  if (projection == "o_proj") return TinyModel::kHidden;
  return (projection == "q_proj" ? TinyModel::kHeads : TinyModel::kKvHeads) * TinyModel::kDim;
}

Tensor tiny_norm(const std::string& name, std::int64_t width) {
  return random_tensor(name, ElementType::kBFloat16, {width});
}

}  // namespace

Tensor tiny_weight(const std::string& projection, ElementType type) {
  static_assert(TinyModel::kHeads * TinyModel::kDim == TinyModel::kHidden);  // of o_proj's input
  return random_tensor(projection, type, {rows_of(projection), TinyModel::kHidden}, 0.125);
}

Tensor tiny_bias(const std::string& projection) {
  return random_tensor(projection + ".bias", ElementType::kBFloat16, {rows_of(projection)}, 0.5);
}

Tensor stack(const std::vector<Tensor>& parts) {
  Shape shape = parts.front().shape();
  shape[0] = 0;
  for (const Tensor& part : parts) shape[0] += part.dim(0);
  Tensor out(parts.front().type(), shape);
  auto to = out.bytes().begin();
  for (const Tensor& part : parts) to = std::ranges::copy(part.bytes(), to).out;
  return out;
}

Tensors TinyModel::tensors() const {
  Tensors t;
  // Other layers and parts of the model, which nobody asks for.
  t["model.embed_tokens.weight"] = random_tensor("embed", ElementType::kBFloat16, {5, kHidden});
  t["model.norm.weight"] = random_tensor("norm", ElementType::kFloat32, {kHidden});
  if (fused) {
    t[prefix + "qkv_proj.weight"] =
        stack({tiny_weight("q_proj"), tiny_weight("k_proj"), tiny_weight("v_proj")});
  } else {
    for (const char* name : {"q_proj", "k_proj", "v_proj"}) {
      t[prefix + name + ".weight"] = tiny_weight(name);
      if (bias) t[prefix + name + ".bias"] = tiny_bias(name);
    }
  }
  t[prefix + output + ".weight"] = tiny_weight("o_proj");
  if (output_bias) t[prefix + output + ".bias"] = tiny_bias("o_proj");
  if (norm) {
    t[prefix + "q_norm.weight"] = tiny_norm("q_norm", norm_width);
    t[prefix + "k_norm.weight"] = tiny_norm("k_norm", norm_width);
  }
  if (sinks) t[prefix + "sinks"] = random_tensor("sinks", ElementType::kBFloat16, {kHeads});
  t.erase(prefix + leave_out);
  return t;
}

void TinyModel::write_folder(const std::string& folder) const {
  write_bytes(folder + "/config.json", config.dump());
  write_bytes(folder + "/model.safetensors", safetensors_bytes(tensors()));
}

void TinyModel::write_shards(const std::string& folder) const {
  write_bytes(folder + "/config.json", config.dump());
  const std::string names[] = {"model-00001-of-00002.safetensors",
                               "model-00002-of-00002.safetensors"};
  Tensors shards[2];
  nlohmann::json index;
  std::size_t i = 0;
  for (const auto& [name, tensor] : tensors()) {
    shards[i % 2][name] = tensor;
    index["weight_map"][name] = names[i++ % 2];
  }
  for (int s = 0; s < 2; ++s) write_bytes(folder + "/" + names[s], safetensors_bytes(shards[s]));
  write_bytes(folder + "/model.safetensors.index.json", index.dump());
}

void TinyModel::expect_weights_in(const golden::GoldenFile& file) const {
  if (fused) {
    EXPECT_EQ(file.datasets.at("weights/qkv_proj.weight"),
              stack({tiny_weight("q_proj"), tiny_weight("k_proj"), tiny_weight("v_proj")}));
  } else {
    for (const std::string name : {"q_proj", "k_proj", "v_proj"}) {
      EXPECT_EQ(file.datasets.at("weights/" + name + ".weight"), tiny_weight(name));
      if (bias) {
        EXPECT_EQ(file.datasets.at("weights/" + name + ".bias"), tiny_bias(name));
      }
    }
  }
  EXPECT_EQ(file.datasets.at("weights/o_proj.weight"), tiny_weight("o_proj"));
}

}  // namespace attn::test
