#pragma once

#include <cstdint>

#include "reference/core/case.h"

namespace attn::harness::cpu {

struct AttendOptions {
  std::int64_t block = 64;  ///< keys per online-softmax step
  int threads = 1;
};

/// The attention core: q [tokens, Hq, head_dim] against the keys and values in `cache`. Writes lse
/// [tokens, Hq] (natural logarithm, sink included) and out [tokens, Hq * head_dim_v]. A row that
/// sees nothing gets 0 and -infinity (the sink where there is one). Keys that a row does not see
/// are never multiplied, so they may hold NaN. The bits do not depend on the threads.
void attend(const Case& c, const KvCache& cache, const float* q, const AttendOptions& options,
            float* lse, float* out);

}  // namespace attn::harness::cpu
