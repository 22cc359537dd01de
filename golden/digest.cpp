#include "golden/digest.h"

#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <bit>
#include <vector>

#include "golden/golden_file.h"
#include "reference/core/error.h"

namespace attn::golden {
namespace {

// Tensors hold little-endian elements in memory, which is what the digests are defined over.
static_assert(std::endian::native == std::endian::little);

std::string hex_of_text(const std::string& text) {
  return sha256_hex(std::as_bytes(std::span(text)));
}

}  // namespace

std::string sha256_hex(std::span<const std::byte> bytes) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned length = 0;
  if (EVP_Digest(bytes.data(), bytes.size(), digest.data(), &length, EVP_sha256(), nullptr) != 1) {
    throw Error(ErrorKind::kInternal, "OpenSSL could not compute a SHA-256 digest");
  }
  static constexpr char kHex[] = "0123456789abcdef";
  std::string hex;
  for (unsigned i = 0; i < length; ++i) {
    hex += kHex[digest[i] >> 4];
    hex += kHex[digest[i] & 15];
  }
  return hex;
}

std::string content_sha256(const std::map<std::string, DigestRow>& rows,
                           const std::string& config_json) {
  std::vector<std::string> lines;
  for (const auto& [path, row] : rows) {
    std::string line = path + "\t" + std::string(element_name(row.type)) + "\t";
    for (std::size_t axis = 0; axis < row.shape.size(); ++axis) {
      if (axis > 0) line += ',';
      line += std::to_string(row.shape[axis]);
    }
    lines.push_back(line + "\t" + row.sha256 + "\n");
  }
  std::sort(lines.begin(), lines.end());  // std::string compares bytes as unsigned
  std::string text;
  for (const std::string& line : lines) text += line;
  return hex_of_text(text + "@config\t" + hex_of_text(config_json) + "\n");
}

std::string dataset_sha256(const Tensor& tensor) { return sha256_hex(tensor.bytes()); }

std::string content_sha256(const GoldenFile& file) {
  std::map<std::string, DigestRow> rows;
  for (const auto& [path, tensor] : file.datasets) {
    rows[path] = {tensor.type(), tensor.shape(), dataset_sha256(tensor)};
  }
  return content_sha256(rows, file.config_json);
}

}  // namespace attn::golden
