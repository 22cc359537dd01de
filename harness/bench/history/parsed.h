#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "harness/bench/history/records.h"

namespace attn::history {

struct ParsedResult {
  Benchmark benchmark;
  Result result;
  std::vector<Sample> samples;
  std::map<std::string, double> metrics;
};

/// What one file of measurements holds; ids are not given yet.
struct ParsedRun {
  Run run;
  std::map<std::string, std::string> context;
  std::vector<ParsedResult> results;
  std::vector<Score> scores;
};

/// Reads the bytes of file `path`, whichever of the kinds of docs/history.md they are. Files that
/// an nvbench file names (samples in binary) are looked for beside it. Throws Error(kInput), one
/// line with the path, for anything else and for a file that is cut off or contradicts itself.
ParsedRun parse_run(const std::string& path, std::string_view bytes);

}  // namespace attn::history
