#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "gpu/device/device.h"
#include "gpu/layers/coded_weights.h"
#include "gpu/layers/fp8_product.h"
#include "gpu/layers/input_format.h"
#include "reference/core/case.h"

namespace attn::gpu {

/// Rows of the q, k, v matrix whose product takes the same input.
struct InputGroup {
  std::int64_t first_row = 0;
  std::int64_t rows = 0;
  InputFormat format;
};

/// Rows of q, k and v that are multiplied as codes.
struct CodedProduct {
  InputGroup input;
  CodedWeight weight;
  std::unique_ptr<const Fp8Weight> plain;  ///< the same codes for cuBLASLt, or none
};

/// True when the layer's weights stay codes on the device. Otherwise quantised weights are decoded
/// to float32 when they are loaded.
bool keeps_codes(const AttentionConfig& config);

/// True when the layer's products read these codes, each with an input that 16 bits hold, as it is
/// or as codes. Otherwise they are float32 products of decoded weights.
bool uses_coded_products(const AttentionConfig& config);

/// A layer's weights on the device as its kernels want them. Unquantised: of config.dtype, clipped.
/// Quantised: their codes, or decoded to float32 where keeps_codes() is false or gptq's groups are
/// of unequal size.
struct DeviceWeights {
  Buffer qkv;             ///< [(Hq + 2 Hkv) D, hidden], without the rows of q for materialize
  Buffer qkv_bias;        ///< float32
  Buffer qkv_bias_typed;  ///< of config.dtype where that is exact, else empty
  Buffer o;               ///< [hidden, Hq Dv]
  Buffer q_gamma, k_gamma, sinks;  ///< float32
  std::vector<InputGroup> groups;  ///< quantised only: of qkv's rows, in order
  InputFormat o_format;
  std::vector<CodedProduct> coded;  ///< in place of qkv and o
  std::unique_ptr<CodedWeight> o_coded;
  std::unique_ptr<const Fp8Weight> o_plain;

  bool has_codes() const { return !coded.empty() || o_coded != nullptr; }

  DeviceWeights(const AttentionConfig& config, const LayerWeights& weights, Fp8Products fp8,
                const Stream& stream);

 private:
  void load_dense(const AttentionConfig& config, const LayerWeights& weights, const Stream& stream);
  void load_quantised(const AttentionConfig& config, const LayerWeights& weights,
                      const Stream& stream);
  bool load_coded(const AttentionConfig& config, const LayerWeights& weights, Fp8Products fp8,
                  const Stream& stream);
  void load_bias(const AttentionConfig& config, const LayerWeights& weights, const Stream& stream);
};

}  // namespace attn::gpu
