#pragma once

#include <string>

namespace attn::golden {

/// What this library was built from and with; goes into the provenance of files and into --version.
struct BuildInfo {
  std::string version;     ///< "0.1.0"
  std::string git_commit;  ///< short hash, "unknown" outside a repository
  bool git_dirty = false;
  std::string compiler;  ///< "GCC 12.2.0"
  std::string compiler_flags;
  std::string build_type;
  std::string eigen;
  std::string hdf5;
};

const BuildInfo& build_info();

/// The processor's model name, or the machine's architecture where the system does not say.
std::string cpu_model();

}  // namespace attn::golden
