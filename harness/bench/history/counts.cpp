#include "harness/bench/history/counts.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <vector>

#include "harness/bench/history/commands.h"
#include "harness/bench/history/json_text.h"

namespace attn::history {
namespace {

namespace fs = std::filesystem;

struct Profile {
  std::string benchmark;  ///< "": no mark made it
  double per_iteration = 0.0;
};

/// The two lines of a profile that matter: "desc: Trigger: Client Request: 5 iterations of NAME"
/// and "summary: 123" (or "totals: 123").
Profile read_profile(const fs::path& path) {
  const std::string trigger = "desc: Trigger: Client Request: ";
  const std::string words = " iterations of ";
  std::ifstream file(path);
  Profile profile;
  double iterations = 0.0;
  double count = -1.0;
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(trigger)) {
      const std::size_t at = line.find(words);
      if (at == std::string::npos) return {};
      iterations = std::strtod(line.c_str() + trigger.size(), nullptr);
      profile.benchmark = line.substr(at + words.size());
    }
    for (const char* const key : {"summary: ", "totals: "}) {
      if (line.starts_with(key) && count < 0.0) {
        count = std::strtod(line.c_str() + std::string(key).size(), nullptr);
      }
    }
  }
  if (profile.benchmark.empty()) return {};
  if (iterations < 1.0 || count < 0.0) refuse(path.string(), "is no whole profile of callgrind");
  profile.per_iteration = count / iterations;
  return profile;
}

/// callgrind numbers a process's profiles: NAME.PID.1, NAME.PID.2.
int number_of_profile(const fs::path& path) {
  const std::string extension = path.extension().string();
  return extension.size() > 1 ? std::atoi(extension.c_str() + 1) : 0;
}

}  // namespace

std::map<std::string, double> read_counts(const std::string& folder) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder)) files.push_back(entry.path());
  std::ranges::sort(files, {}, number_of_profile);
  std::map<std::string, double> counts;
  for (const fs::path& file : files) {
    const Profile profile = read_profile(file);
    if (!profile.benchmark.empty()) counts[profile.benchmark] = profile.per_iteration;
  }
  return counts;
}

std::map<std::string, double> count_instructions(const std::string& command) {
  const TemporaryFolder folder;
  run_command("valgrind --quiet --tool=callgrind --collect-atstart=no --callgrind-out-file=" +
              quoted(folder / "profile") + ".%p " + command +
              " --benchmark_repetitions=1 --benchmark_min_time=0.000001");
  std::map<std::string, double> counts = read_counts(folder.path());
  if (counts.empty()) {
    refuse(command,
           "marks nothing for callgrind to count (harness/bench/instructions.h does, where the "
           "program is built with valgrind's header)");
  }
  return counts;
}

}  // namespace attn::history
