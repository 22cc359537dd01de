#include "golden/import/tensor_file.h"

#include <array>
#include <string_view>
#include <vector>

#include "golden/import/byte_file.h"
#include "golden/import/gguf.h"
#include "reference/core/error.h"

namespace attn::golden {

const StoredTensor& TensorFile::entry(const std::string& name) const {
  const auto found = tensors_.find(name);
  if (found != tensors_.end()) return found->second;
  std::vector<std::string> known;
  for (const auto& [each, stored] : tensors_) known.push_back(each);
  constexpr std::size_t kMostNames = 12;  // a checkpoint has thousands
  std::string hint_text = hint(name, known);
  if (known.size() > kMostNames && nearest_match(name, known).empty()) {
    hint_text = "; it holds " + std::to_string(known.size()) + " others, \"" + known.front() +
                "\" the first";
  }
  refuse_file(path_, name, "is not in the file" + hint_text);
}

Tensor TensorFile::read(const std::string& name) const {
  const StoredTensor& stored = entry(name);
  if (!stored.type) {
    refuse_file(stored.file, name,
                "has type " + stored.dtype + ", which is not decoded here; convert it first");
  }
  Tensor tensor(*stored.type, stored.shape);
  if (tensor.bytes().size() != stored.bytes) {
    refuse_file(stored.file, name,
                "has " + std::to_string(stored.bytes) + " bytes, its shape needs " +
                    std::to_string(tensor.bytes().size()));
  }
  read_bytes(name, stored, tensor);
  return tensor;
}

std::unique_ptr<TensorFile> open_tensor_file(const std::string& path) {
  const ByteFile file(path);
  std::array<char, 6> start{};
  const std::size_t count = std::min<std::size_t>(start.size(), file.size());
  file.read(0, std::as_writable_bytes(std::span(start.data(), count)), "signature");
  const std::string_view signature(start.data(), count);
  if (signature.starts_with("GGUF")) return open_gguf(path);
  if (signature.starts_with("PK")) return open_npz(path);
  if (signature == "\x93NUMPY") return open_npy(path);
  return open_safetensors(path);
}

}  // namespace attn::golden
