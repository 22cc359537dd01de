#pragma once

#include <string>

namespace attn::cli {

/// Whether the program was built with its CUDA path.
bool built_with_cuda();

/// "0.1.0" and "1a2b3c4d5e6f", "-dirty" appended for a changed tree.
std::string version();
std::string commit();

/// The text of --version, several lines.
std::string version_text();

}  // namespace attn::cli
