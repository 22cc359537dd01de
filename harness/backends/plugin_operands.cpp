#include "harness/backends/plugin_operands.h"

#include <algorithm>
#include <utility>

#include "harness/backends/backend_failure.h"
#include "reference/reference.h"

namespace attn::harness {
namespace {

constexpr StageMask kCacheStages = bit(Stage::kCacheK) | bit(Stage::kCacheV);

const char* name_of_step(std::int32_t step) {
  constexpr const char* kNames[] = {"attention", "the inputs", "the norm",
                                    "rope",      "the cache",  "the output projection"};
  return kNames[step];
}

/// The stages that a step reads, whether or not the config has them.
StageMask read_by(const AttentionConfig& config, std::int32_t step) {
  const StageMask projected = bit(Stage::kQProj) | bit(Stage::kKProj);
  switch (step) {
    case ATTN_FROM_ATTENTION:
      return bit(Stage::kQRope) | kCacheStages;
    case ATTN_FROM_NORM:
      return projected | bit(Stage::kVProj);
    case ATTN_FROM_ROPE:
      return (config.use_qk_norm ? bit(Stage::kQNorm) | bit(Stage::kKNorm) : projected) |
             bit(Stage::kVProj);
    case ATTN_FROM_CACHE:
      return bit(Stage::kQRope) | bit(Stage::kKRope) | bit(Stage::kVProj);
    case ATTN_FROM_OUTPUT:
      return bit(Stage::kAttnOut);
    default:
      return 0;
  }
}

/// The stages that come at or after a step.
StageMask computed_from(std::int32_t step) {
  StageMask mask = (1U << kNumStages) - 1;
  const auto drop_before = [&](Stage first) { mask &= ~(bit(first) - 1) | bit(Stage::kFreqsCis); };
  switch (step) {
    case ATTN_FROM_ATTENTION:
      drop_before(Stage::kLse);
      break;
    case ATTN_FROM_NORM:
      drop_before(Stage::kQNorm);
      break;
    case ATTN_FROM_ROPE:
      drop_before(Stage::kQRope);
      break;
    case ATTN_FROM_CACHE:
      drop_before(Stage::kCacheK);
      break;
    case ATTN_FROM_OUTPUT:
      drop_before(Stage::kOut);
      break;
    default:
      break;
  }
  return mask;
}

}  // namespace

Task task_of(const AttentionConfig& config, const attn_capability& capability) {
  Task task;
  task.first_step = capability.first_step;
  if (task.first_step < ATTN_FROM_ATTENTION || task.first_step > ATTN_FROM_OUTPUT) {
    throw BackendFailure(Status::kFailed, "query() declares first_step " +
                                              std::to_string(task.first_step) +
                                              "; use one of ATTN_FROM_...");
  }
  StageMask declared = capability.stages;
  if (declared == 0 && task.first_step == ATTN_FROM_ATTENTION) {
    declared = bit(Stage::kLse) | bit(Stage::kAttnOut);
  }
  if (declared == 0 && task.first_step == ATTN_FROM_OUTPUT) declared = bit(Stage::kOut);
  const StageMask possible = computed_from(task.first_step);
  for (const Stage stage : all_stages()) {
    if (!contains(declared & ~possible, stage)) continue;
    throw BackendFailure(Status::kFailed, "query() declares stage " + std::string(name_of(stage)) +
                                              ", which comes before its first_step, " +
                                              name_of_step(task.first_step));
  }
  if (declared == 0 || declared >> kNumStages != 0) {
    throw BackendFailure(Status::kFailed, "query() declares stages " + std::to_string(declared) +
                                              "; use a sum of 1 << ATTN_STAGE_...");
  }
  StageMask all = 0;
  for (const Stage stage : stages_of(config)) all |= bit(stage);
  task.writes = declared & all;
  task.given = read_by(config, task.first_step) & all;
  return task;
}

std::string nothing_to_do(const AttentionConfig& config, const Task& task) {
  if (config.starts_at_attention() && task.first_step != ATTN_FROM_ATTENTION) {
    return std::string("the plug-in starts at ") + name_of_step(task.first_step) +
           ", the case at attention";
  }
  if (task.first_step == ATTN_FROM_INPUTS && config.clip_activations == 0.0) {
    return "clip_activations is 0, which a plug-in that starts at the inputs reads as none";
  }
  if (task.writes != 0) return "";
  return std::string("the plug-in starts at ") + name_of_step(task.first_step) +
         " and writes none of the stages of " + std::string(name_of(config.entry_point));
}

Shape plugin_shape(const Case& c, Stage stage, std::int64_t tokens) {
  Shape shape = stage_shape(c, stage);
  if (stage == Stage::kFreqsCis) return shape;
  shape[0] = tokens;
  const AttentionConfig& config = c.config;
  std::int64_t heads = 0;
  switch (stage) {
    case Stage::kQProj:
    case Stage::kQNorm:
    case Stage::kQRope:
    case Stage::kAttnOut:
      heads = config.num_attention_heads;
      break;
    case Stage::kKProj:
    case Stage::kVProj:
    case Stage::kKNorm:
    case Stage::kKRope:
      heads = config.num_key_value_heads;
      break;
    default:
      return shape;
  }
  return {shape[0], heads, shape[1] / heads};
}

PluginOperands make_operands(const Case& c, const Task& task) {
  PluginOperands operands;
  operands.c = &c;
  operands.task = task;
  operands.cache = c.cache;
  operands.tokens = c.tokens();
  operands.key_lengths = Tensor(ElementType::kUInt32, {c.batch()});
  for (std::int64_t b = 0; b < c.batch(); ++b) {
    operands.key_lengths.set_code(b, static_cast<std::uint64_t>(c.key_count(b)));
  }
  if (task.given == 0) return operands;
  Trace exact = reference::evaluate(c, reference::Mode::kExact);
  for (const Stage stage : all_stages()) {
    if (!contains(task.given & ~kCacheStages, stage)) continue;
    operands.given[static_cast<std::size_t>(stage)] = Tensor::from_values(
        c.config.dtype, plugin_shape(c, stage, c.tokens()), exact[stage].values());
  }
  if ((task.given & kCacheStages) != 0) operands.cache = std::move(exact.cache.value());
  return operands;
}

}  // namespace attn::harness
