#include "harness/bench/history/commands.h"

#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>

#include "harness/bench/history/json_text.h"
#include "harness/bench/history/random.h"
#include "harness/report/writers.h"
#include "reference/core/error.h"

namespace attn::history {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

/// Appends the repetitions of one more round, numbered on.
void pool(json& all, const json& round, std::map<std::string, std::int64_t>& repetitions) {
  if (all.is_null()) all = {{"context", round.at("context")}, {"benchmarks", json::array()}};
  for (json row : round.at("benchmarks")) {
    if (!row.is_object() || row.contains("aggregate_name")) continue;
    row["repetition_index"] = repetitions[text_of(row, "run_name")]++;
    row.erase("repetitions");
    all["benchmarks"].push_back(std::move(row));
  }
}

json measured_by(const std::string& command, const std::string& file) {
  fs::remove(file);
  run_command(command + " --benchmark_out_format=json --benchmark_out=" + quoted(file));
  std::ifstream stream(file, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(stream)),
                          std::istreambuf_iterator<char>());
  json round = parse_json_file(command, bytes);
  if (!round.is_object() || !round.contains("context") || !round.contains("benchmarks") ||
      !round["benchmarks"].is_array()) {
    refuse(command, "wrote no Google Benchmark JSON");
  }
  return round;
}

}  // namespace

TemporaryFolder::TemporaryFolder() {
  std::string name = (fs::temp_directory_path() / "attn-history-XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr) {
    throw Error(ErrorKind::kInput, name + ": no temporary folder can be made", name);
  }
  path_ = name;
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code error;
  fs::remove_all(path_, error);
}

std::string quoted(const std::string& word) {
  std::string text = "'";
  for (const char c : word) text += c == '\'' ? "'\\''" : std::string(1, c);
  return text + "'";
}

namespace {

/// The last line that a program wrote, for one that failed.
std::string last_line_of(const std::string& path) {
  std::ifstream file(path);
  std::string last;
  for (std::string line; std::getline(file, line);) {
    if (!line.empty()) last = line;
  }
  return last;
}

}  // namespace

void run_command(const std::string& line) {
  const TemporaryFolder folder;
  const std::string said = folder / "stderr";
  const int status = std::system(("exec >/dev/null 2>" + quoted(said) + "; " + line).c_str());
  if (status == 0) return;
  const std::string last = last_line_of(said);
  const bool ended = status != -1 && WIFEXITED(status);
  throw Error(ErrorKind::kInput,
              "\"" + line + "\" " +
                  (ended ? "ended with code " + std::to_string(WEXITSTATUS(status))
                         : std::string("was killed")) +
                  (last.empty() ? "" : ": " + last),
              line);
}

void run_rounds(const Rounds& rounds, const std::string& candidate_file,
                const std::string& baseline_file, const std::function<void(std::int64_t)>& watch) {
  const TemporaryFolder folder;
  Random random(rounds.seed);
  json candidate;
  json baseline;
  std::map<std::string, std::int64_t> of_candidate;
  std::map<std::string, std::int64_t> of_baseline;
  for (std::int64_t round = 0; round < rounds.rounds; ++round) {
    if (watch) watch(round);
    const bool candidate_first = random.below(2) == 0;
    for (const bool is_candidate : {candidate_first, !candidate_first}) {
      const std::string& command =
          is_candidate ? rounds.candidate_command : rounds.baseline_command;
      const json measured = measured_by(command, folder / "round.json");
      pool(is_candidate ? candidate : baseline, measured,
           is_candidate ? of_candidate : of_baseline);
    }
  }
  harness::write_text_file(candidate_file, dump(candidate));
  harness::write_text_file(baseline_file, dump(baseline));
}

}  // namespace attn::history
