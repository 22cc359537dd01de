#include "golden/import/byte_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "golden/raw_file.h"
#include "reference/core/error.h"

namespace attn::golden {

void refuse_file(const std::string& path, const std::string& where, const std::string& what) {
  throw Error(
      ErrorKind::kInput,
      printable(path) + ": " + (where.empty() ? "" : printable(where) + ": ") + printable(what),
      where);
}

ByteFile::ByteFile(std::string path) : path_(std::move(path)) {
  descriptor_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  struct stat status {};
  const bool opened = descriptor_ >= 0 && ::fstat(descriptor_, &status) == 0;
  if (!opened || !S_ISREG(status.st_mode)) {
    if (descriptor_ >= 0) ::close(descriptor_);
    refuse_file(path_, "",
                opened ? "is no regular file; name the file itself"
                       : "cannot be opened; is the name right, and may it be read?");
  }
  size_ = static_cast<std::uint64_t>(status.st_size);
}

ByteFile::~ByteFile() { ::close(descriptor_); }

void ByteFile::read(std::uint64_t offset, std::span<std::byte> out,
                    const std::string& where) const {
  if (offset > size_ || out.size() > size_ - offset) {
    refuse_file(path_, where,
                "needs bytes " + std::to_string(offset) + " to " +
                    std::to_string(offset + out.size()) + " of a file of " + std::to_string(size_) +
                    "; the file is cut short or damaged");
  }
  while (!out.empty()) {
    const ssize_t got = ::pread(descriptor_, out.data(), out.size(), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) refuse_file(path_, where, "cannot be read; the file changed or the disk failed");
    out = out.subspan(static_cast<std::size_t>(got));
    offset += static_cast<std::uint64_t>(got);
  }
}

}  // namespace attn::golden
