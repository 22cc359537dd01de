#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "reference/core/tensor.h"

/// Writers of the files that are imported: as little as each format needs, and nothing of the
/// readers under test.
namespace attn::test {

using Tensors = std::map<std::string, Tensor>;

/// A fresh folder that goes away with the object.
class TempFolder {
 public:
  TempFolder();
  ~TempFolder();
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  std::string path() const { return path_.string(); }
  std::string operator/(const std::string& name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

std::string read_bytes(const std::string& path);
void write_bytes(const std::string& path, std::string_view bytes);

/// N(0, gain) values, a function of the name and seed.
Tensor random_tensor(std::string_view name, ElementType type, Shape shape, double gain = 1.0);
/// Any bytes.
Tensor random_bytes(std::string_view name, ElementType type, Shape shape);

std::string safetensors_bytes(const Tensors& tensors);
std::string npy_bytes(const Tensor& tensor);
void write_npz(const std::string& path, const Tensors& tensors, bool deflate);

/// One tensor of a GGUF file. `axes` innermost first, as the format has them.
struct GgufTensor {
  std::uint32_t type = 0;
  std::vector<std::uint64_t> axes;
  std::string bytes;
};
/// Metadata values: strings, booleans, integers (uint32), reals (float32) and arrays of them.
std::string gguf_bytes(const nlohmann::json& metadata,
                       const std::map<std::string, GgufTensor>& tensors, std::uint32_t version = 3);
/// Dense matrices and vectors in their own type.
GgufTensor gguf_dense(const Tensor& tensor);

/// What a run of attn-compare in this process gave.
struct Ran {
  int code = -1;
  std::string out;
  std::string err;
};
Ran run(const std::vector<std::string>& args);

}  // namespace attn::test
