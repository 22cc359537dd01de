#pragma once

#include <cstdint>
#include <vector>

#include "gpu/device/device.h"
#include "gpu/kernels/quantise.h"
#include "reference/core/case.h"

namespace attn::gpu {

/// What the input of a product becomes before it.
struct InputFormat {
  ActivationFormat format = ActivationFormat::kNone;
  std::int64_t block = 0;  ///< columns that share a scale; 0: the whole row (or device's slice)
  float scale = 0.0f;

  friend bool operator==(const InputFormat&, const InputFormat&) = default;
};

/// Rows of the q, k, v matrix whose product takes the same input.
struct InputGroup {
  std::int64_t first_row = 0;
  std::int64_t rows = 0;
  InputFormat format;
};

/// A layer's weights on the device as its kernels want them. Unquantised: of config.dtype, clipped.
/// Quantised: decoded once to float32, so that their products are float32 ones. (Slow and four
/// bytes a weight; products that read the codes are still to come.)
struct DeviceWeights {
  Buffer qkv;             ///< [(Hq + 2 Hkv) D, hidden], without the rows of q for materialize
  Buffer qkv_bias;        ///< float32
  Buffer qkv_bias_typed;  ///< of config.dtype where that is exact, else empty
  Buffer o;               ///< [hidden, Hq Dv]
  Buffer q_gamma, k_gamma, sinks;  ///< float32
  std::vector<InputGroup> groups;  ///< quantised only: of qkv's rows, in order
  InputFormat o_format;

  DeviceWeights(const AttentionConfig& config, const LayerWeights& weights, const Stream& stream);

 private:
  void load_dense(const AttentionConfig& config, const LayerWeights& weights, const Stream& stream);
  void load_quantised(const AttentionConfig& config, const LayerWeights& weights,
                      const Stream& stream);
  void load_bias(const AttentionConfig& config, const LayerWeights& weights, const Stream& stream);
};

}  // namespace attn::gpu
