#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "harness/faults/fault_run.h"

namespace attn::harness {

/// What a gate made of the catalogue.
struct GateScore {
  std::uint64_t seed = 1;
  std::int64_t cases = 0;
  std::int64_t planted = 0;  ///< without controls
  std::int64_t killed = 0;
  std::int64_t median_cases = 0;  ///< to a kill
  std::int64_t most_cases = 0;
  std::vector<std::string> survivors;  ///< ids, in the order of the catalogue

  friend bool operator==(const GateScore&, const GateScore&) = default;
};

/// data/faults/score.json: what every later run is held to.
struct FaultScore {
  std::map<std::string, GateScore> gates;  ///< by the gate's name
  /// How many of `random_cases` random cases kill each bug, without controls.
  std::int64_t random_cases = 0;
  std::map<std::string, std::int64_t> random_kills;

  friend bool operator==(const FaultScore&, const FaultScore&) = default;
};

std::string_view name_of(Gate gate);
/// Throws Error(kUsage) with the nearest known name.
Gate parse_gate(std::string_view name);

GateScore score_of(const FaultRun& run, std::uint64_t seed);

/// Bugs that fewer than one in twenty random cases kill.
std::vector<std::string> hard_faults(const FaultScore& score);

/// Throws Error(kInput) with the file's name.
FaultScore load_score(const std::string& path);
/// Throws Error(kUsage) when the file cannot be written.
void save_score(const std::string& path, const FaultScore& score);

/// The score as the table of README.md.
std::string score_table(const FaultScore& score);

}  // namespace attn::harness
