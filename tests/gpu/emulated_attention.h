#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "gpu/kernels/attention.h"
#include "tests/gpu/emulator/device.h"

namespace attn::gpu {

/// A call of the Hopper prefill kernel on an emulated block.
struct EmulatedCall {
  Type type = Type::kBFloat16;
  int heads = 1, kv_heads = 1, head_dim = 128, head_dim_v = 128, page_size = 64;
  bool heads_first = false;  ///< in a page
  MaskKind mask = MaskKind::kNone;
  int span = 0;
  bool top_left = false, sinks = false;
  float softcap = 0.0f, scale = 0.1f;
  std::vector<std::array<int, 2>> sequences;  ///< queries, keys
  int multiprocessors = 3;
  int level_rows = -1;  ///< 0 or 1: rows i with i / 8 % 2 like that are 0, and so are their scores
  float rise = 1.0f;    ///< of keys, so many times the 128 behind them, up to 40 times
  /// Of a warp's 16 rows eight have one channel, the others none, and one of the first 128 keys is
  /// large in it. The 16 warps of 256 rows have the eight 16 keys for either half of their rows,
  /// and each another place of 16.
  bool lone_keys = false;
  bool coded = false;   ///< the cache holds e4m3 codes
  bool fp8 = false;     ///< and they are multiplied as they are
  bool images = false;  ///< or widened once
  CacheScales scales = CacheScales::kNone;
  bool any_codes = false;         ///< each finite code as often, in place of normal values
  std::vector<float> key_scales;  ///< of the heads, drawn where there are none

  std::string text() const;
};

/// Runs the kernel's own source and judges it by float64: "" when every row is right and nothing
/// else was written. Memory that nothing may read is NaN. `every`: of so many rows one is judged.
std::string run_emulated(const EmulatedCall& call, std::uint64_t seed, int every = 1);

/// The same of a call whose scores rise from step to step, with and without masks: shifts of the
/// steps before are too low, by so much that sums of probabilities are too large, that codes of
/// them end, or that exponentials are infinite.
std::string run_emulated_rise(EmulatedCall call, float rise, int head_dim);

/// Threads that come last in the runs to come.
extern emulator::Starved emulated_starved;

/// Calls of a test of random ones: ATTN_EMULATED_CALLS, or 32.
std::uint64_t emulated_calls();

}  // namespace attn::gpu
