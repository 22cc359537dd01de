#include <algorithm>

#include "gpu/kernels/attention.h"
#include "gpu/kernels/prefill_shape.h"

namespace attn::gpu {
namespace {

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// Keys below which a part costs more than it saves.
constexpr std::int64_t kFewestDecodeKeys = 128;
constexpr std::int64_t kFewestPrefillKeys = 256;
// Keys of one step of all warps of a narrow decode block.
constexpr std::int64_t kDecodeStep = 64;

}  // namespace

bool has_tensor_core_kernel(Type type, Type cache_type, std::int64_t head_dim,
                            std::int64_t head_dim_v) {
  const bool sixteen_bit = type == Type::kBFloat16 || type == Type::kFloat16;
  return sixteen_bit && cache_type == type && head_dim % 8 == 0 && head_dim_v % 8 == 0 &&
         std::max(head_dim, head_dim_v) <= kTensorCoreMostHeadDim;
}

AttentionPlan plan_attention(std::int64_t batch, std::int64_t max_rows, std::int64_t max_keys,
                             std::int64_t num_heads, std::int64_t num_kv_heads,
                             std::int64_t head_dim, int multiprocessors, int fixed_splits) {
  const std::int64_t packed = max_rows * (num_heads / num_kv_heads);
  AttentionPlan plan;
  plan.decode = packed <= kDecodeRows;
  const int tile = static_cast<int>(std::max<std::int64_t>(head_dim, 1));
  if (!plan.decode) {
    const std::int64_t large_blocks =
        batch * num_kv_heads * ceil_div(packed, prefill_rows(tile, false));
    plan.small_tiles =
        packed <= prefill_rows(tile, true) || (fixed_splits == 0 && large_blocks < multiprocessors);
  }
  plan.row_tiles = plan.decode ? 1 : ceil_div(packed, prefill_rows(tile, plan.small_tiles));
  if (plan.decode) plan.decode_blocks = batch * num_kv_heads;
  if (fixed_splits > 0) {
    plan.splits = std::min(fixed_splits, kMostSplits);
    return plan;
  }
  // One wave: as many parts as blocks fit beside each other, none too short to be worth it.
  const std::int64_t blocks = std::max<std::int64_t>(1, batch * num_kv_heads * plan.row_tiles);
  const std::int64_t fewest = plan.decode ? kFewestDecodeKeys : kFewestPrefillKeys;
  const auto parts = [&](std::int64_t slots) {
    const std::int64_t most =
        std::max<std::int64_t>(1, std::min<std::int64_t>(kMostSplits, max_keys / fewest));
    const std::int64_t splits = std::clamp<std::int64_t>(slots / blocks, 1, most);
    // Parts are whole steps of the kernel, so that some could be left without any.
    const std::int64_t steps = std::max<std::int64_t>(1, ceil_div(max_keys, kDecodeStep));
    return std::min(splits, ceil_div(steps, ceil_div(steps, splits)));
  };
  const int per_sm = plan.decode ? decode_blocks_per_sm(tile)
                                 : prefill_tile_size(tile, plan.small_tiles).blocks_per_sm;
  std::int64_t splits = parts(static_cast<std::int64_t>(multiprocessors) * per_sm);
  if (plan.decode && has_wide_decode(tile)) {
    // Wide blocks where they fill one wave, or where narrow ones would not either.
    const std::int64_t wide = parts(multiprocessors);
    const std::int64_t filled = blocks * wide;
    plan.wide = filled <= multiprocessors &&
                (filled >= multiprocessors * 9 / 10 || blocks * splits <= multiprocessors);
    if (plan.wide) splits = wide;
  }
  plan.splits = static_cast<int>(splits);
  return plan;
}

bool combines_in_kernel(const AttentionPlan& plan) {
  return plan.decode && plan.splits > 1 && plan.decode_blocks <= kCounters;
}

std::int64_t partial_floats(const AttentionPlan& plan, std::int64_t tokens, std::int64_t num_heads,
                            std::int64_t head_dim_v) {
  return plan.splits > 1 ? plan.splits * tokens * num_heads * (head_dim_v + 2) : 0;
}

}  // namespace attn::gpu
