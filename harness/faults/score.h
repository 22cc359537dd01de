#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "harness/faults/fault_run.h"

namespace attn::harness {

/// What a gate made of the planted bugs of memory, which live in a plug-in of their own.
struct MemoryScore {
  std::int64_t cases = 0;  ///< of the gate: those that start at attention
  std::int64_t planted = 0;
  std::int64_t killed = 0;
  std::map<std::string, std::int64_t> killed_by;  ///< detector: "guard", "value", "poison"
  std::vector<std::string> survivors;             ///< ids, in the order of the list

  friend bool operator==(const MemoryScore&, const MemoryScore&) = default;
};

/// What a gate made of the planted bugs.
struct GateScore {
  std::uint64_t seed = 1;
  std::int64_t cases = 0;
  std::int64_t planted = 0;  ///< without controls
  std::int64_t killed = 0;
  std::int64_t median_cases = 0;  ///< to a kill
  std::int64_t most_cases = 0;
  std::vector<std::string> survivors;  ///< ids, in the order of the catalogue
  MemoryScore memory;                  ///< none planted: not run

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

/// `memory` is the run of the bugs of memory, none of them where they were not run.
GateScore score_of(const FaultRun& run, const FaultRun& memory, std::uint64_t seed);
/// "24 of 24 planted bugs of memory killed: 15 by guard, ...".
std::string to_string(const MemoryScore& score);

/// Bugs that fewer than one in twenty random cases kill.
std::vector<std::string> hard_faults(const FaultScore& score);

/// Throws Error(kInput) with the file's name.
FaultScore load_score(const std::string& path);
/// Throws Error(kUsage) when the file cannot be written.
void save_score(const std::string& path, const FaultScore& score);

/// The score as the table of README.md.
std::string score_table(const FaultScore& score);

}  // namespace attn::harness
