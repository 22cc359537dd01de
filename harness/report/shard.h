#pragma once

#include <charconv>
#include <cstdint>
#include <string>
#include <string_view>

#include "reference/core/error.h"

namespace attn::harness {

/// One part of a run that is spread over several processes or machines: `--shard I/N`, I from 1 to
/// N. Item k of the whole run, counted from 0 in its own order, belongs to shard k % N + 1, so that
/// neighbours, which tend to cost alike, are dealt to all. Nothing else enters: every shard lists
/// the same items, and the union of the N shards is the whole run.
struct Shard {
  std::int64_t index = 1;
  std::int64_t count = 1;

  bool is_whole() const { return count == 1; }
  bool owns(std::int64_t item) const { return item % count == index - 1; }

  friend bool operator==(const Shard&, const Shard&) = default;
};

/// "3/8"
inline std::string to_string(const Shard& shard) {
  return std::to_string(shard.index) + "/" + std::to_string(shard.count);
}

/// Reads "3/8". Throws Error(kUsage).
inline Shard parse_shard(std::string_view text) {
  const auto number = [&](std::string_view word) {
    std::int64_t value = 0;
    const auto [stop, failure] = std::from_chars(word.data(), word.data() + word.size(), value);
    const bool whole = failure == std::errc() && stop == word.data() + word.size();
    return whole ? value : 0;
  };
  const std::size_t slash = text.find('/');
  Shard shard{number(text.substr(0, slash)), 0};
  if (slash != std::string_view::npos) shard.count = number(text.substr(slash + 1));
  if (shard.index >= 1 && shard.index <= shard.count) return shard;
  throw Error(ErrorKind::kUsage,
              "--shard " + std::string(text) +
                  ": is no part of a run; write I/N with I from 1 to N, as in 3/8",
              "--shard");
}

}  // namespace attn::harness
