#pragma once

#include <array>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "reference/core/case.h"
#include "reference/core/tensor.h"

namespace attn {

/// The named steps of a layer, in order. Shapes (T rows of all sequences, K = sum of key counts):
enum class Stage : std::uint8_t {
  kFreqsCis,  ///< [positions, rotary_dim]: the table made from config.rope
  kQProj,     ///< [T, Hq*D]: after projection, bias and activation clip
  kKProj,     ///< [T, Hkv*D]
  kVProj,     ///< [T, Hkv*D]
  kQNorm,     ///< [T, Hq*D]: only with use_qk_norm
  kKNorm,     ///< [T, Hkv*D]
  kQRope,     ///< [T, Hq*D]
  kKRope,     ///< [T, Hkv*D]
  kCacheK,    ///< [K, Hkv, D]: whole cache after the call, logical order, decoded values
  kCacheV,    ///< [K, Hkv, Dv]
  kLse,       ///< [T, Hq]: natural logarithm, includes the sink
  kAttnOut,   ///< [T, Hq*Dv]
  kOut,       ///< [T, hidden_size]
};
inline constexpr std::size_t kNumStages = 13;

std::string_view name_of(Stage stage);
Stage parse_stage(std::string_view name);
std::span<const Stage> all_stages();

/// The stages that a case of this config produces, in order.
std::vector<Stage> stages_of(const AttentionConfig& config);
/// Shape of a stage's tensor for this case.
Shape stage_shape(const Case& c, Stage stage);

/// What one evaluation produced: any subset of the stages, each in whatever element type the
/// implementation computed (the reference: float64), and the paged cache after the call.
struct Trace {
  std::array<Tensor, kNumStages> stages;
  /// The whole pool after the call, where the implementation has one; lets a guard check that other
  /// layers, unused slots and foreign pages kept every bit.
  std::optional<KvCache> cache;
  /// Stages that the implementation was fed with rather than asked to compute: never judged, and
  /// the next stage is judged on them.
  std::array<bool, kNumStages> given{};

  void give(Stage s) { given[static_cast<std::size_t>(s)] = true; }
  bool is_given(Stage s) const { return given[static_cast<std::size_t>(s)]; }
  bool has(Stage s) const { return !stages[static_cast<std::size_t>(s)].empty(); }
  const Tensor& operator[](Stage s) const { return stages[static_cast<std::size_t>(s)]; }
  Tensor& operator[](Stage s) { return stages[static_cast<std::size_t>(s)]; }
};

/// Reads the cache in logical order: [K, Hkv, D] and [K, Hkv, Dv] float64 values (code * scale).
Tensor logical_keys(const Case& c, const KvCache& cache);
Tensor logical_values(const Case& c, const KvCache& cache);

}  // namespace attn
