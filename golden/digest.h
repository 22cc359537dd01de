#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <string>

#include "reference/core/tensor.h"

namespace attn::golden {

/// SHA-256, lower-case hex.
std::string sha256_hex(std::span<const std::byte> bytes);

/// One row of what content_sha256 covers.
struct DigestRow {
  ElementType type = ElementType::kFloat32;
  Shape shape;
  std::string sha256;
};

/// SHA-256 over the bytewise sorted lines "path<TAB>dtype<TAB>d0,d1,...<TAB>sha256hex<LF>", then
/// "@config<TAB>sha256hex of the config text<LF>".
std::string content_sha256(const std::map<std::string, DigestRow>& rows,
                           const std::string& config_json);

}  // namespace attn::golden
