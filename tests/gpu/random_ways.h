#pragma once

// Ways of the streamed products, drawn for tests on the emulated block.

#include <random>
#include <sstream>
#include <string>

#include "gpu/kernels/coded_stream_shape.h"

namespace attn::gpu {

/// Any way of those that there are.
inline StreamWays random_ways(std::mt19937_64& random) {
  StreamWays ways;
  ways.owners = random() % 2 == 0;
  ways.one_row = random() % 3 != 0;
  ways.one_warps = random() % 2 == 0 ? 8 : 16;
  ways.one_tiles = static_cast<int>(random() % 4);
  ways.one_ask = static_cast<int>(random() % 3);
  return ways;
}
inline std::string text_of(const StreamWays& ways) {
  std::ostringstream s;
  s << " owners " << ways.owners << " one row " << ways.one_row << " of " << ways.one_warps
    << " warps, tiles " << ways.one_tiles << " asking " << ways.one_ask;
  return s.str();
}

}  // namespace attn::gpu
