#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace attn::harness {

/// What is done before and around the call that is judged. Some mistakes live in one of these only.
enum class ExecMode : std::uint8_t {
  kPlain,         ///< one call
  kSecondCall,    ///< after a call with another case, in the same process
  kDirtyScratch,  ///< after memory that calls leave behind was filled with NaN
  kRepeat,        ///< twice, bit for bit the same where the backend claims that
  kGraph,         ///< devices: captured into a graph, which is then launched
  kGraphReplay,   ///< devices: captured with another case, launched with this one in its buffers
  kPadded,        ///< devices: the batch padded to a larger one with rows that ask for nothing
};

/// "plain", "second_call", ...
std::string_view name_of(ExecMode mode);

/// Whether only an implementation on a device can be run so.
constexpr bool needs_device(ExecMode mode) { return mode >= ExecMode::kGraph; }

/// Whether the mode takes another case beside the judged one.
constexpr bool needs_other_case(ExecMode mode) {
  return mode == ExecMode::kSecondCall || mode == ExecMode::kGraphReplay;
}

/// One of all modes, each for as many numbers: how gates deal them to the cases of a device.
ExecMode dealt_mode(std::uint64_t number);

/// "plain,repeat" in the order given, each once. Throws Error(kUsage) with the nearest known name.
std::vector<ExecMode> parse_exec_modes(std::string_view words);

}  // namespace attn::harness
