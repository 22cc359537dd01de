#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "harness/generate/draft.h"
#include "reference/core/philox.h"

namespace attn::harness {

/// A weight matrix as drawn, [rows, columns]; a row makes one output.
struct DenseMatrix {
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  std::vector<double> values;

  std::span<const double> row(std::int64_t r) const {
    return std::span(values).subspan(static_cast<std::size_t>(r * columns),
                                     static_cast<std::size_t>(columns));
  }
};

/// Scales of one kind of which no two are alike, and none is 1: projections of one scale would hide
/// that one reads another's, a scale of 1 that one reads none.
class DistinctScales {
 public:
  /// The float32 value nearest to `wanted`, times 1.5 as often as it lies near 1 or near an earlier
  /// one. Throws nothing; `wanted` is positive.
  double next(double wanted);

 private:
  std::vector<double> taken_;
};

struct ScaleKinds {
  DistinctScales weight;
  DistinctScales weight_2;
  DistinctScales input;
};

/// One matrix to be stored in the encoding of its projection. The encoders are simple and good:
/// each block's scale makes its largest weight one of the largest codes. They use nothing but
/// integers and correctly rounded operations, so that every machine stores the same bytes.
struct EncodeJob {
  const DenseMatrix& weight;
  const QuantConfig& quant;
  QuantEncoding encoding = QuantEncoding::kNone;
  std::string projection;  ///< "q_proj", ...: of the stored tensors' names
  std::uint64_t seed = 0;
  double input_amax = 1.0;  ///< about the largest magnitude of the projection's input
  ScaleKinds& scales;

  RandomStream stream(const std::string& suffix) const { return {seed, projection + "." + suffix}; }
};

/// Each adds PROJECTION.weight, .weight_scale, ... as docs/golden-format.md lists them.
void encode_fp8(const EncodeJob& job, LayerWeights& weights);
void encode_nvfp4(const EncodeJob& job, LayerWeights& weights);
void encode_mx(const EncodeJob& job, LayerWeights& weights);
void encode_gptq(const EncodeJob& job, LayerWeights& weights);
void encode_gguf(const EncodeJob& job, LayerWeights& weights);

/// The stored bytes of whole blocks of one encoding: q4_0, q8_0 (32 values each), q4_k, q5_k, q6_k
/// (256 values each).
std::vector<std::byte> encode_gguf_blocks(QuantEncoding encoding, std::span<const double> values);

/// Largest magnitude; 0 for none.
double largest_magnitude(std::span<const double> values);

/// What stands for the largest magnitude of weights that are all zero, so that their scale is
/// neither 0 nor 1.
constexpr double kNoMagnitude = 0x1p-5;

struct CacheScales {
  Tensor k;  ///< float32: absent, [], [Hkv] or [sum(cache_lengths), Hkv]
  Tensor v;
};

/// Replaces the dense matrices of a draft whose config is quantised by their stored tensors, and
/// the dense prior cache of an fp8 cache by its codes; returns the cache's scales.
CacheScales quantise(Draft& d);

bool is_fp8(ElementType type);

}  // namespace attn::harness
