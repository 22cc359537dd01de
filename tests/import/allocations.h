#pragma once

#include <cstddef>

namespace attn::test {

/// Bytes of the largest allocation of C++ code since the last reset. A program that links
/// allocations.cpp has its operator new replaced by one that looks.
std::size_t largest_allocation();
void reset_largest_allocation();

}  // namespace attn::test
