#pragma once

#include <string>

namespace attn::cli {

/// What this program was built from and with.
struct BuildInfo {
  std::string version;   ///< "0.1.0"
  std::string commit;    ///< short hash, "-dirty" appended for a changed tree
  std::string compiler;  ///< "g++ 12.2.0"
  std::string flags;     ///< "Release, -O3 -DNDEBUG -ffp-contract=off"
  std::string hdf5;
  std::string eigen;
  bool cuda = false;
};

const BuildInfo& build_info();

/// The text of --version, several lines.
std::string version_text();

}  // namespace attn::cli
