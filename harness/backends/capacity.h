#pragma once

#include <cstdint>

#include "reference/core/case.h"

namespace attn::harness {

/// Room for the tensors of a case. A captured call takes any case that fits, so what fixes strides
/// and places is here and not in the case.
struct Capacity {
  std::int64_t batch = 0;
  std::int64_t tokens = 0;
  std::int64_t table_columns = 0;
  std::int64_t mask_columns = 0;
  std::int64_t positions = 0;
  std::int64_t pages = 0;
};
Capacity capacity_of(const Case& c);
/// Room for either.
Capacity larger(const Capacity& a, const Capacity& b);

/// Sequences of a batch that is padded to a bucket: a power of two, at least 4, more than `batch`.
std::int64_t padded_batch(std::int64_t batch);

}  // namespace attn::harness
