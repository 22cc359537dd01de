#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "golden/import/tensor_file.h"

namespace attn::golden {

/// A GGUF file, version 2 or 3, little-endian.
class GgufFile : public TensorFile {
 public:
  /// Metadata by key: numbers, strings, booleans and arrays of numbers. Arrays of strings and
  /// arrays longer than 65536 are left out.
  const nlohmann::json& metadata() const { return metadata_; }

 protected:
  explicit GgufFile(std::string path) : TensorFile(std::move(path)) {}
  nlohmann::json metadata_ = nlohmann::json::object();
};

/// Throws Error(kInput), one line, for anything malformed.
std::unique_ptr<GgufFile> open_gguf(const std::string& path);

}  // namespace attn::golden
