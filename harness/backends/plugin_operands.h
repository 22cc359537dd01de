#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "harness/backends/attn_plugin.h"
#include "reference/core/case.h"
#include "reference/core/trace.h"

namespace attn::harness {

/// A set of stages, as in attn_capability.stages.
using StageMask = std::uint32_t;
constexpr StageMask bit(Stage stage) { return StageMask{1} << static_cast<unsigned>(stage); }
constexpr bool contains(StageMask mask, Stage stage) { return (mask & bit(stage)) != 0; }

/// What a plug-in does in every case of a config.
struct Task {
  std::int32_t first_step = ATTN_FROM_ATTENTION;
  StageMask given = 0;   ///< the stages that its first step reads
  StageMask writes = 0;  ///< those of the declared ones that the config has

  bool writes_cache() const {
    return contains(writes, Stage::kCacheK) || contains(writes, Stage::kCacheV);
  }
};

/// Throws BackendFailure when the declaration makes no sense.
Task task_of(const AttentionConfig& config, const attn_capability& capability);

/// Why a plug-in with this task has nothing to do with the config, "" when it has.
std::string nothing_to_do(const AttentionConfig& config, const Task& task);

/// What a plug-in is given in one case: the case's own tensors and those that the exact reference
/// made up to its first step.
struct PluginOperands {
  const Case* c = nullptr;
  Task task;
  /// [T, heads, channels] in config.dtype; the cache stages are in `cache`. Absent unless given.
  std::array<Tensor, kNumStages> given;
  KvCache cache;       ///< as the first step finds it
  Tensor key_lengths;  ///< [batch] uint32, after the call
  /// Rows of the tensors that have one for each token; more than the case's in a padded batch.
  std::int64_t tokens = 0;
};
PluginOperands make_operands(const Case& c, const Task& task);

/// A stage's axes as a plug-in sees them, of a batch of `tokens` rows: [tokens, heads, channels]
/// where the stage has heads.
Shape plugin_shape(const Case& c, Stage stage, std::int64_t tokens);

}  // namespace attn::harness
