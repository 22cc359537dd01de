#pragma once

#include <cstdint>
#include <vector>

#include "reference/core/case.h"

namespace attn::gpu {

enum class Matrix { kQ, kK, kV, kO };

struct MatrixSize {
  std::int64_t out = 0;
  std::int64_t in = 0;
};
MatrixSize matrix_size(const AttentionConfig& config, Matrix matrix);

/// "q_proj.SUFFIX" and so on.
const Tensor& projection_tensor(const LayerWeights& weights, Matrix matrix, const char* suffix);
/// The largest of a scalar of q, k and v; materialize may lack q's.
double largest_of_qkv(const LayerWeights& weights, const char* suffix);

QuantEncoding encoding_of(const AttentionConfig& config, Matrix matrix);

/// x as float32, its lower half cut off: rounded toward zero.
float truncate_to_bfloat16(double x);

/// A projection's weight as float32 [out, in], whatever it is stored as: formulas in float64,
/// rounded once (gptq: as layers of config.dtype round it). q, k and v are clipped, taken out of
/// the stacked matrix, and merged to one scale where static per-tensor fp8 asks for it.
std::vector<float> decode_weight(const AttentionConfig& config, const LayerWeights& weights,
                                 Matrix matrix);

/// Scale of statically quantised activations (fp8 and nvfp4): o_proj's own, or the largest of the
/// three of q, k and v, which are one product. 0 where the config has none.
float static_input_scale(const AttentionConfig& config, const LayerWeights& weights, Matrix matrix);

}  // namespace attn::gpu
