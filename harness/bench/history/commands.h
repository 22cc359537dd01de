#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace attn::history {

/// A fresh folder for temporary files that goes away with the object.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

/// Runs a line in the shell, its stdout thrown away. Throws Error(kInput) with the line when it
/// does not end with 0.
void run_command(const std::string& line);

/// A shell word.
std::string quoted(const std::string& word);

struct Rounds {
  std::string candidate_command;
  std::string baseline_command;
  std::int64_t rounds = 15;
  std::uint64_t seed = 1;  ///< of which of the two goes first in a round
};

/// Runs two Google Benchmark programs in turns and writes what each measured over all rounds as one
/// file, every repetition kept: a clock or a neighbour that changes, changes for both. `watch` gets
/// the number of rounds done.
void run_rounds(const Rounds& rounds, const std::string& candidate_file,
                const std::string& baseline_file, const std::function<void(std::int64_t)>& watch);

}  // namespace attn::history
