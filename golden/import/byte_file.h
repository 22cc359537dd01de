#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace attn::golden {

/// "FILE: WHERE: what" as Error(kInput); everything made printable and one line.
[[noreturn]] void refuse_file(const std::string& path, const std::string& where,
                              const std::string& what);

/// A regular file, read by position. Every read is checked against its size.
class ByteFile {
 public:
  /// Throws Error(kInput) when it is absent, no regular file or cannot be opened.
  explicit ByteFile(std::string path);
  ~ByteFile();
  ByteFile(const ByteFile&) = delete;
  ByteFile& operator=(const ByteFile&) = delete;

  const std::string& path() const { return path_; }
  std::uint64_t size() const { return size_; }

  /// Fills `out` from byte `offset` on. Throws Error(kInput) naming `where` when the file ends
  /// before.
  void read(std::uint64_t offset, std::span<std::byte> out, const std::string& where) const;

 private:
  std::string path_;
  int descriptor_ = -1;
  std::uint64_t size_ = 0;
};

}  // namespace attn::golden
