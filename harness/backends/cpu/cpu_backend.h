#pragma once

#include <cstdint>
#include <memory>

#include "harness/backends/backend.h"

namespace attn::harness::cpu {

struct CpuOptions {
  std::int64_t block = 64;  ///< keys per online-softmax step, at least 1
  int threads = 0;          ///< 0: as many as the machine has
};

/// An independent float32 implementation of the layers: it shares nothing with the reference but
/// the types of reference/core. Activations stay float32 between the stages whatever config.dtype
/// is; new keys and values are rounded to the cache's type and read back from it.
std::unique_ptr<Backend> make_cpu_backend(const CpuOptions& options);

}  // namespace attn::harness::cpu
