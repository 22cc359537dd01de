#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "harness/generate/case_spec.h"
#include "reference/core/case.h"

namespace attn::harness {

/// A case in the making: weights, inputs and the dense cache are drawn, pages are not laid out yet.
/// Profiles change it in place.
struct Draft {
  Case c;
  std::uint64_t seed = 0;
  double q_gain = 1.0;                     ///< standard deviation of the queries
  Tensor k;                                ///< [sum(cache_lengths), Hkv, D]
  Tensor v;                                ///< [sum(cache_lengths), Hkv, Dv]
  std::vector<std::int64_t> cached;        ///< per sequence: its tokens in k and v
  std::vector<std::int64_t> first_cached;  ///< per sequence: its first token in k and v

  const AttentionConfig& config() const { return c.config; }
};

/// Rows of a weight matrix that make one of q, k, v: of its own matrix or of the stacked one.
struct ProjectionRows {
  std::string weight;  ///< name in Case::weights
  std::int64_t first = 0;
  std::int64_t count = 0;
};
enum class Projection { kQ, kK, kV };
ProjectionRows rows_of(const AttentionConfig& config, Projection projection);

/// make_case with one more change to the drawn data, after the profile's and before weights and
/// cache are quantised. The case has no line that makes it again.
Case make_case(const CaseSpec& spec, std::uint64_t seed, const std::function<void(Draft&)>& shape);

/// inputs/freqs_cis: the exact table of config.rope, [positions, rotary_dim] float32.
Tensor freqs_cis(const AttentionConfig& config, std::int64_t positions);

/// Factor of N(0, 1) queries that gives the scaled logits of N(0, 1) keys a standard deviation of
/// `logit_std`: logit_std / (|scale| * sqrt(head_dim)), kept within 2^-6 .. 2^8 so that float16
/// holds it; logit_std for scale 0.
double query_gain(const AttentionConfig& config, double logit_std);

}  // namespace attn::harness
