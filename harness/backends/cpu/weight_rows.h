#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "harness/backends/cpu/unpack.h"
#include "reference/core/case.h"

namespace attn::harness::cpu {

enum class Matrix { kQ, kK, kV, kO };

/// "q_proj", ...
std::string name_of(Matrix matrix);
QuantEncoding encoding_of(const AttentionConfig& config, Matrix matrix);

/// The weight of one projection, decoded to float32 a few rows at a time. A value takes at most one
/// rounding (static per-tensor fp8, which is requantised: one after that).
class WeightRows {
 public:
  virtual ~WeightRows() = default;
  /// Rows first .. first + rows.count - 1 into `rows`, which are as wide as the weight.
  virtual void decode(std::int64_t first, Rows& rows) const = 0;
};

/// The largest of the float32 scalars "q_proj.SUFFIX", "k_proj.SUFFIX", "v_proj.SUFFIX"; a q_proj
/// that materialize_kv_from_hidden was not given is left out.
float largest_qkv_scale(const Case& c, const std::string& suffix);

/// The weight of a projection. q, k and v are clipped by clip_qkv, merged when they are static
/// per-tensor fp8, and rows of "qkv_proj.weight" when they are stacked. `c` must outlive it.
std::unique_ptr<WeightRows> open_weight(const Case& c, Matrix matrix);

}  // namespace attn::harness::cpu
