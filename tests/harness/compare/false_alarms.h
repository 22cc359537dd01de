#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "reference/core/element.h"
#include "reference/core/trace.h"

namespace attn::harness {

/// Random correct cases and what the comparison made of them. None may be above 1.
struct FalseAlarms {
  std::int64_t cases = 0;
  std::int64_t quantised = 0;  ///< of these, with quantised weights
  std::int64_t float8 = 0;     ///< of these, with a float8 cache
  std::int64_t comparisons = 0;
  std::int64_t mistrusted = 0;
  std::vector<std::string> alarms;  ///< a line each, with what reproduces it
  /// Largest ratio of each case, by "backend, dtype, taps" and stage.
  std::map<std::string, std::map<Stage, std::vector<double>>> ratios;

  /// A table per mode: largest / 99th percentile / median over cases.
  std::string table() const;
};

/// Cases first_seed .. first_seed + count - 1 of random_small_spec, on `threads` threads. Case s
/// runs on cpu with block size 5, 16 or 64 and 1, 2 or 3 threads (s mod 9), in both modes; with
/// `references` also on exact and faithful.
FalseAlarms find_false_alarms(std::uint64_t first_seed, std::int64_t count, bool references,
                              int threads);

}  // namespace attn::harness
