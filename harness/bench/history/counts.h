#pragma once

#include <map>
#include <string>

namespace attn::history {

/// Instructions of one iteration by benchmark ("NAME | BACKEND"), of the profiles in `folder` that
/// a program with marks (harness/bench/instructions.h) wrote under callgrind. The last mark of a
/// name counts. Throws Error(kInput).
std::map<std::string, double> read_counts(const std::string& folder);

/// Runs a Google Benchmark program once under valgrind, one repetition and as few iterations as it
/// takes, and reads its counts. Throws Error(kInput) when valgrind is missing, when the command
/// fails or when it marks nothing.
std::map<std::string, double> count_instructions(const std::string& command);

}  // namespace attn::history
