#include "golden/build_info.h"

#include <sys/utsname.h>

#include <fstream>

#include "git_revision.h"

namespace attn::golden {
namespace {

std::string compiler() {
#if defined(__clang__)
  return "Clang " __clang_version__;
#elif defined(__GNUC__)
  return "GCC " __VERSION__;
#else
  return "unknown";
#endif
}

}  // namespace

const BuildInfo& build_info() {
  static const BuildInfo info{.version = ATTN_VERSION,
                              .git_commit = ATTN_GIT_REVISION,
                              .git_dirty = ATTN_GIT_DIRTY,
                              .compiler = compiler(),
                              .compiler_flags = ATTN_CXX_FLAGS,
                              .build_type = ATTN_BUILD_TYPE,
                              .eigen = ATTN_EIGEN_VERSION,
                              .hdf5 = ATTN_HDF5_VERSION};
  return info;
}

std::string cpu_model() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    const std::size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
  }
  utsname machine{};
  return uname(&machine) == 0 ? machine.machine : "unknown";
}

}  // namespace attn::golden
