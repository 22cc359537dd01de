#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>

#include "harness/report/writers.h"
#include "reference/core/error.h"

namespace attn::harness {

void write_text_file(const std::string& path, const std::string& text) {
  const std::string temporary = path + ".tmp." + std::to_string(::getpid());
  const auto fail = [&](const std::string& what) {
    const std::string reason = std::strerror(errno);
    std::remove(temporary.c_str());
    throw Error(ErrorKind::kInput, path + ": " + what + ": " + reason, path);
  };
  errno = 0;
  {
    std::ofstream file(temporary, std::ios::binary);
    if (!file) fail("cannot be written");
    file << text;
    file.close();
    if (!file) fail("cannot be written");
  }
  if (std::rename(temporary.c_str(), path.c_str()) != 0) fail("cannot be replaced");
}

}  // namespace attn::harness
