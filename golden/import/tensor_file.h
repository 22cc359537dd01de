#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "reference/core/config.h"
#include "reference/core/tensor.h"

namespace attn::golden {

/// What a file's header says of one tensor. The header was checked: the bytes lie inside of the
/// file and are as many as the shape and type need.
struct StoredTensor {
  std::string dtype;                ///< the file's own word: "BF16", "<f4", "Q4_K"
  std::optional<ElementType> type;  ///< absent: a type that this program does not decode
  /// GGUF blocks: `type` is uint8 and the last axis of `shape` counts bytes.
  QuantEncoding encoding = QuantEncoding::kNone;
  Shape shape;
  std::string file;          ///< that holds the bytes
  std::uint64_t offset = 0;  ///< of the first byte in the file (npz: unused)
  std::uint64_t bytes = 0;
};

/// Named tensors of one file or of the shards of a checkpoint. Opening reads the headers only.
class TensorFile {
 public:
  virtual ~TensorFile() = default;

  const std::string& path() const { return path_; }
  const std::map<std::string, StoredTensor>& tensors() const { return tensors_; }
  bool has(const std::string& name) const { return tensors_.count(name) != 0; }
  /// The header's entry. Throws Error(kInput) with the nearest known name.
  const StoredTensor& entry(const std::string& name) const;
  /// The tensor as stored. Throws Error(kInput) when it is absent, of a type that is not decoded,
  /// or cannot be read.
  Tensor read(const std::string& name) const;

 protected:
  explicit TensorFile(std::string path) : path_(std::move(path)) {}
  virtual void read_bytes(const std::string& name, const StoredTensor& entry,
                          Tensor& tensor) const = 0;

  std::string path_;
  std::map<std::string, StoredTensor> tensors_;
};

/// A safetensors file. Throws Error(kInput), one line, for anything malformed.
std::unique_ptr<TensorFile> open_safetensors(const std::string& path);

/// A zip archive of .npy arrays, or one .npy file (its tensor is called like the file's stem).
std::unique_ptr<TensorFile> open_npz(const std::string& path);
std::unique_ptr<TensorFile> open_npy(const std::string& path);

/// Any of the formats, told apart by their first bytes: safetensors, npz, npy, GGUF.
std::unique_ptr<TensorFile> open_tensor_file(const std::string& path);

/// The tensors of a Hugging Face folder: model.safetensors.index.json and its shards, or the
/// folder's one *.safetensors file.
std::unique_ptr<TensorFile> open_checkpoint(const std::string& folder);

}  // namespace attn::golden
