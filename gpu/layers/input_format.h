#pragma once

#include <cstdint>

#include "gpu/kernels/quantise.h"

namespace attn::gpu {

/// What the input of a product becomes before it.
struct InputFormat {
  ActivationFormat format = ActivationFormat::kNone;
  std::int64_t block = 0;  ///< columns that share a scale; 0: the whole row (or device's slice)
  float scale = 0.0f;

  friend bool operator==(const InputFormat&, const InputFormat&) = default;
};

}  // namespace attn::gpu
