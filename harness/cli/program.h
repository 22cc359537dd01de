#pragma once

#include <string>
#include <vector>

#include "harness/cli/console_io.h"

namespace attn::cli {

/// The whole of attn-compare but the process: `args` are the words after the program's name.
/// Returns the exit code; never throws.
int run_program(const std::vector<std::string>& args, const Streams& streams);

}  // namespace attn::cli
