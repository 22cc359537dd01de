#include "harness/faults/score.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "reference/core/error.h"

namespace attn::harness {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::array kGateNames{"smoke", "pr", "nightly"};
constexpr int kSchema = 1;

bool is_planted(const FaultOutcome& outcome) { return outcome.fault->equivalent_because.empty(); }

Json to_json(const MemoryScore& memory) {
  return {{"cases", memory.cases},
          {"planted", memory.planted},
          {"killed", memory.killed},
          {"killed_by", memory.killed_by},
          {"survivors", memory.survivors}};
}

Json to_json(const GateScore& gate) {
  Json json{{"seed", gate.seed},
            {"cases", gate.cases},
            {"planted", gate.planted},
            {"killed", gate.killed},
            {"median_cases_to_kill", gate.median_cases},
            {"most_cases_to_kill", gate.most_cases},
            {"survivors", gate.survivors}};
  if (gate.memory.planted > 0) json["memory"] = to_json(gate.memory);
  return json;
}

MemoryScore memory_from(const Json& json) {
  MemoryScore memory;
  memory.cases = json.at("cases");
  memory.planted = json.at("planted");
  memory.killed = json.at("killed");
  memory.killed_by = json.at("killed_by").get<std::map<std::string, std::int64_t>>();
  memory.survivors = json.at("survivors").get<std::vector<std::string>>();
  return memory;
}

GateScore gate_from(const Json& json) {
  GateScore gate;
  gate.seed = json.at("seed");
  gate.cases = json.at("cases");
  gate.planted = json.at("planted");
  gate.killed = json.at("killed");
  gate.median_cases = json.at("median_cases_to_kill");
  gate.most_cases = json.at("most_cases_to_kill");
  gate.survivors = json.at("survivors").get<std::vector<std::string>>();
  if (json.contains("memory")) gate.memory = memory_from(json.at("memory"));
  return gate;
}

MemoryScore memory_score_of(const FaultRun& run) {
  MemoryScore score;
  score.cases = run.cases;
  for (const FaultOutcome& outcome : run.outcomes) {
    ++score.planted;
    if (outcome.killed()) {
      ++score.killed;
      ++score.killed_by[std::string(name_of(outcome.kill.detector))];
    } else {
      score.survivors.emplace_back(outcome.fault->id);
    }
  }
  return score;
}

std::string percent(std::int64_t part, std::int64_t whole) {
  std::array<char, 16> text{};
  const double share = whole == 0 ? 0.0 : static_cast<double>(part) / static_cast<double>(whole);
  std::snprintf(text.data(), text.size(), "%.1f %%", 100.0 * share);
  return text.data();
}

}  // namespace

std::string_view name_of(Gate gate) { return kGateNames.at(static_cast<std::size_t>(gate)); }

Gate parse_gate(std::string_view name) {
  const auto* const found = std::ranges::find(kGateNames, name);
  if (found != kGateNames.end()) return static_cast<Gate>(found - kGateNames.begin());
  throw Error(ErrorKind::kUsage,
              "there is no gate \"" + std::string(name) + "\"" +
                  hint(name, {kGateNames.begin(), kGateNames.end()}),
              "--gate");
}

GateScore score_of(const FaultRun& run, const FaultRun& memory, std::uint64_t seed) {
  GateScore score;
  if (!memory.outcomes.empty()) score.memory = memory_score_of(memory);
  score.seed = seed;
  score.cases = run.cases;
  std::vector<std::int64_t> cases_to_kill;
  for (const FaultOutcome& outcome : run.outcomes) {
    if (!is_planted(outcome)) continue;
    ++score.planted;
    if (outcome.killed()) {
      cases_to_kill.push_back(outcome.cases_to_kill);
    } else {
      score.survivors.emplace_back(outcome.fault->id);
    }
  }
  score.killed = std::ssize(cases_to_kill);
  std::ranges::sort(cases_to_kill);
  if (!cases_to_kill.empty()) {
    score.median_cases = cases_to_kill[cases_to_kill.size() / 2];
    score.most_cases = cases_to_kill.back();
  }
  return score;
}

std::string to_string(const MemoryScore& score) {
  std::string text = std::to_string(score.killed) + " of " + std::to_string(score.planted) +
                     " planted bugs of memory killed";
  const char* separator = ": ";
  for (const auto& [detector, number] : score.killed_by) {
    text += separator + std::to_string(number) + " by " + detector;
    separator = ", ";
  }
  return text;
}

std::vector<std::string> hard_faults(const FaultScore& score) {
  std::vector<std::string> hard;
  for (const auto& [id, kills] : score.random_kills) {
    if (20 * kills < score.random_cases) hard.push_back(id);
  }
  return hard;
}

FaultScore load_score(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw Error(ErrorKind::kInput, path + ": cannot be read", path);
  try {
    const Json json = Json::parse(file);
    if (json.at("schema_version") != kSchema) {
      throw Error(ErrorKind::kInput,
                  path + ": schema_version is not " + std::to_string(kSchema) +
                      "; record it again: attn-compare faults --record FILE",
                  path);
    }
    FaultScore score;
    for (const auto& [name, gate] : json.at("gates").items()) score.gates[name] = gate_from(gate);
    score.random_cases = json.at("random").at("cases");
    score.random_kills = json.at("random").at("kills").get<std::map<std::string, std::int64_t>>();
    return score;
  } catch (const nlohmann::json::exception& error) {
    throw Error(ErrorKind::kInput, path + ": is no score: " + error.what(), path);
  }
}

void save_score(const std::string& path, const FaultScore& score) {
  Json gates = Json::object();
  for (const char* name : kGateNames) {
    const auto gate = score.gates.find(name);
    if (gate != score.gates.end()) gates[name] = to_json(gate->second);
  }
  const Json json{{"schema_version", kSchema},
                  {"gates", gates},
                  {"random", {{"cases", score.random_cases}, {"kills", score.random_kills}}}};
  std::ofstream file(path);
  file << json.dump(1) << "\n";
  file.close();
  if (!file) throw Error(ErrorKind::kUsage, path + ": cannot be written", path);
}

std::string score_table(const FaultScore& score) {
  std::ostringstream table;
  table << "| gate | cases | planted bugs killed | cases to a kill: median, most |\n"
           "|---|---|---|---|\n";
  for (const char* name : kGateNames) {
    const auto found = score.gates.find(name);
    if (found == score.gates.end()) continue;
    const GateScore& gate = found->second;
    table << "| " << name << " | " << gate.cases << " | " << gate.killed << " of " << gate.planted
          << " (" << percent(gate.killed, gate.planted) << ") | " << gate.median_cases << ", "
          << gate.most_cases << " |\n";
  }
  table << "\n"
        << hard_faults(score).size() << " of the bugs are killed by fewer than one in twenty of "
        << score.random_cases << " random cases.\n";
  const auto pr = score.gates.find("pr");
  if (pr != score.gates.end() && pr->second.memory.planted > 0) {
    table << "Where a kernel reads and writes, pr gate: " << to_string(pr->second.memory) << ".\n";
  }
  return table.str();
}

}  // namespace attn::harness
