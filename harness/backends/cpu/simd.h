#pragma once

#include <cstdint>
#include <cstring>

namespace attn::harness::cpu {

/// Four float32 lanes: one SSE2 or NEON register.
using Float4 = float __attribute__((vector_size(16)));

inline Float4 load4(const float* p) {
  Float4 v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

inline void store4(float* p, Float4 v) { std::memcpy(p, &v, sizeof v); }

inline Float4 splat4(float x) { return Float4{x, x, x, x}; }

/// A dot product runs in this many independent float32 sums, added pairwise at the end; rows are
/// padded with zeros to a multiple of it.
inline constexpr std::int64_t kLanes = 8;

inline constexpr std::int64_t padded(std::int64_t n) { return (n + kLanes - 1) / kLanes * kLanes; }

}  // namespace attn::harness::cpu
