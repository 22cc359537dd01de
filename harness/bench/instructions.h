#pragma once

#include <cstdint>
#include <string>

// Without valgrind's header the marks cost nothing and mark nothing.
#if __has_include(<valgrind/callgrind.h>)
#include <valgrind/callgrind.h>
#define ATTN_CALLGRIND 1
#else
#define ATTN_CALLGRIND 0
#endif

namespace attn::bench {

/// Whether callgrind (or another tool of valgrind) runs the program.
inline bool is_counted() {
#if ATTN_CALLGRIND
  return RUNNING_ON_VALGRIND != 0;
#else
  return false;
#endif
}

/// Marks what `attn-compare history gate --instructions` counts: from the constructor to finish().
/// Under callgrind with --collect-atstart=no only marked work is counted, and each mark writes a
/// profile whose trigger names the benchmark and its iterations; elsewhere it does nothing.
class CountedRegion {
 public:
  CountedRegion() { toggle(); }
  void finish([[maybe_unused]] const std::string& benchmark,
              [[maybe_unused]] std::int64_t iterations) {
    toggle();
#if ATTN_CALLGRIND
    const std::string trigger = std::to_string(iterations) + " iterations of " + benchmark;
    CALLGRIND_DUMP_STATS_AT(trigger.c_str());
#endif
  }

 private:
  static void toggle() {
#if ATTN_CALLGRIND
    CALLGRIND_TOGGLE_COLLECT;
#endif
  }
};

}  // namespace attn::bench
