#pragma once

#include <cstdint>

#include "reference/core/element.h"

namespace attn::harness {

/// How a matrix product accumulates.
enum class Accumulator {
  kFloat32,
  kFloat32TensorCore,
  kFloat16,
  kFp8_14Bit,
  kFp8_14BitPromoted128,
  kFloat64
};

/// The arithmetic that a backend declares; the error bound follows from it. The defaults are the
/// strictest: float32 everywhere. docs/numerics.md has the meaning of each field in the bound.
struct Arithmetic {
  ElementType store = ElementType::kFloat32;  ///< q, k, v between stages
  ElementType out = ElementType::kFloat32;    ///< attn_out and out
  ElementType lse = ElementType::kFloat32;
  ElementType cache = ElementType::kFloat32;  ///< stored cache
  double operand_roundoff = 0.0;              ///< extra rounding of GEMM operands: tf32 2^-11
  Accumulator projection_acc = Accumulator::kFloat32;
  Accumulator attention_acc = Accumulator::kFloat32;  ///< scores and P*V
  /// Longest chain of additions in a sum of n terms: n / lanes + log2(lanes).
  std::int64_t lanes = 1;
  ElementType probabilities = ElementType::kFloat32;  ///< P as multiplied with V
  bool lse_from_rounded_probabilities = false;
  /// What P, 1 for a row's largest score, is multiplied by before it is rounded to its type.
  double probability_scale = 1.0;
  /// The queries of a row and head may be rounded once more as attention multiplies them: to e4m3,
  /// under the power of two that brings the largest of them into [128, 256).
  bool e4m3_queries = false;
  double exp_rel = 0x1p-23;                     ///< relative error of one exponential
  std::int64_t block = 0;                       ///< keys per online-softmax step; 0: one block
  std::int64_t splits = 1;                      ///< split-KV parts
  ElementType cos_sin = ElementType::kFloat32;  ///< the rope table as used
  /// Inverse frequencies and their scaling, of the table, computed in float32: more than the one
  /// rounding of the angle.
  bool float32_frequencies = false;
  bool rope_native = false;                      ///< rope products rounded to `store`
  bool round_twice = false;                      ///< rounded before the bias and again after it
  ElementType norm_eps = ElementType::kFloat32;  ///< type that rms_norm_eps is rounded to
  bool fused_cache = false;                      ///< cache converted from unrounded k
  /// Quantised numbers: type in which codes are decoded, scales multiplied and quotients formed.
  ElementType scaling = ElementType::kFloat32;
  /// Quantised weights as the layer that runs in config.dtype prepares them (docs/numerics.md,
  /// "Two references"), and judged on these: gptq with its scales cut and its weights rounded.
  bool native_weights = false;
  /// Type of each device's part of `out`, before the parts are summed (tensor_parallel).
  ElementType partial = ElementType::kFloat32;

  // Claims about bits, which no bound depends on. They are held against what it does.
  bool deterministic = false;    ///< equal calls give equal bits
  bool batch_invariant = false;  ///< a row's bits do not depend on the other rows
};

}  // namespace attn::harness
