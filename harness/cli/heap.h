#pragma once

#include <malloc.h>

namespace attn::cli {

/// Lets the heap keep what is freed: glibc otherwise gives matrices of a few MiB back to the system
/// after every case and takes the page faults again in the next one, a fifth of the time of a case
/// with 1024 keys. Call once, first thing in main.
inline void keep_freed_memory() {
#ifdef M_MMAP_THRESHOLD
  constexpr int kLargest = 64 << 20;
  mallopt(M_MMAP_THRESHOLD, kLargest);
  mallopt(M_TRIM_THRESHOLD, 4 * kLargest);
#endif
}

}  // namespace attn::cli
