#include <algorithm>

#include "gpu/kernels/attention.h"
#include "gpu/kernels/attention_decode_lean.h"
#include "gpu/kernels/prefill_shape.h"

namespace attn::gpu {
namespace {

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// Keys below which a part costs more than it saves.
constexpr std::int64_t kFewestDecodeKeys = 128;
constexpr std::int64_t kFewestPrefillKeys = 256;
// Keys of one step of the prefill kernel.
constexpr std::int64_t kPrefillStep = 64;

// What a decode call costs, in bytes that a multiprocessor would read in that time while all of
// them do; measured on an H200 (35 KB a microsecond).
constexpr double kStartCost = 90e3;    // lengths, pages and first keys of a block
constexpr double kCombineCost = 70e3;  // parts through the workspace
constexpr double kPartCost = 1e3;      // each of them
constexpr double kMailCost = 25e3;     // parts as mail
// How many times that rate a block reads at most where it has its multiprocessor to itself; codes
// cost arithmetic. And where two blocks share one.
constexpr double kAloneRate = 1.6;
constexpr double kCodedAloneRate = 0.7;
constexpr double kCodedSharedRate = 0.43;
// Most keys of a block of a cluster: beyond, a cluster's fewer blocks cost more than its way to
// combine saves. Clusters of these sizes leave a tenth of the multiprocessors unused.
constexpr std::int64_t kMostClusterKeys = 384;

int tile_of(const AttentionShape& shape) {
  return static_cast<int>(std::max<std::int64_t>(shape.head_dim, 1));
}

/// Splits of the tiled kernel: one wave of blocks beside each other, none too short to be worth it.
int prefill_splits(const AttentionShape& shape, const AttentionPlan& plan, std::int64_t blocks) {
  const int per_sm = prefill_tile_size(tile_of(shape), plan.small_tiles).blocks_per_sm;
  const std::int64_t slots = static_cast<std::int64_t>(shape.multiprocessors) * per_sm;
  const std::int64_t most =
      std::clamp<std::int64_t>(plan.max_keys / kFewestPrefillKeys, 1, kMostSplits);
  const std::int64_t splits = std::clamp<std::int64_t>(slots / blocks, 1, most);
  // Parts are whole steps of the kernel, so that some could be left without any.
  const std::int64_t steps = std::max<std::int64_t>(1, ceil_div(plan.max_keys, kPrefillStep));
  return static_cast<int>(std::min(splits, ceil_div(steps, ceil_div(steps, splits))));
}

/// Mail has room for two blocks a multiprocessor, and each split a bit.
bool mails(const AttentionShape& shape, const AttentionPlan& plan, int splits) {
  return plan.way.mail && plan.max_keys >= plan.way.mail_keys && splits > 1 &&
         splits <= kMostMailed && plan.decode_items <= kCounters / 2 &&
         plan.decode_items * splits <= 2 * shape.multiprocessors;
}

/// The cheapest number of splits of the decode kernel.
int decode_splits(const AttentionShape& shape, const AttentionPlan& plan) {
  const int head_dim = tile_of(shape);
  const DecodeBlockSize size = decode_block_size(head_dim, shape.coded, plan.decode_rows);
  const std::int64_t round = std::int64_t{kDecodeKeys} * size.warps;
  const double key_bytes = 2.0 * head_dim * (shape.coded ? 1 : 2);
  const std::int64_t rounds = std::max<std::int64_t>(1, ceil_div(plan.max_keys, round));
  const std::int64_t most = std::clamp<std::int64_t>(plan.max_keys / kFewestDecodeKeys, 1,
                                                     std::min<std::int64_t>(kMostSplits, rounds));
  const double all =
      static_cast<double>(plan.decode_items * plan.max_keys) * key_bytes / shape.multiprocessors;
  int best = 1;
  double least = 0.0;
  for (int splits = 1; splits <= most; ++splits) {
    // Parts are whole rounds of the warps; a number that leaves some without any is skipped.
    const std::int64_t each = ceil_div(rounds, splits);
    if (ceil_div(rounds, each) != splits) continue;
    const std::int64_t blocks = plan.decode_items * splits;
    const bool shared = size.blocks_per_sm > 1 && blocks > shape.multiprocessors;
    const double rate = !shape.coded ? kAloneRate : shared ? kCodedSharedRate : kCodedAloneRate;
    const auto waves = static_cast<double>(
        ceil_div(blocks, std::int64_t{shape.multiprocessors} * size.blocks_per_sm));
    const double block = waves * static_cast<double>(each * round) * key_bytes / rate;
    const double cost = std::max(all, block) + 0.1 * block + waves * kStartCost +
                        (splits == 1                  ? 0.0
                         : mails(shape, plan, splits) ? kMailCost
                                                      : kCombineCost + splits * kPartCost);
    if (splits > 1 && cost >= least) continue;
    best = splits;
    least = cost;
  }
  return best;
}

/// Blocks of the cluster that a row's splits should be, or 1.
int cluster_size(const AttentionShape& shape, const AttentionPlan& plan) {
  if (!shape.clusters) return 1;
  for (int size = kMostCluster; size > 1; size /= 2) {
    if (size <= plan.splits && plan.decode_items * size * 11 <= shape.multiprocessors * 10) {
      return plan.max_keys <= kMostClusterKeys * size ? size : 1;
    }
  }
  return 1;
}

}  // namespace

bool has_tensor_core_kernel(Type type, Type cache_type, std::int64_t head_dim,
                            std::int64_t head_dim_v) {
  const bool sixteen_bit = type == Type::kBFloat16 || type == Type::kFloat16;
  return sixteen_bit && (cache_type == type || cache_type == Type::kFloat8E4M3) &&
         head_dim % 8 == 0 && head_dim_v % 8 == 0 &&
         std::max(head_dim, head_dim_v) <= kTensorCoreMostHeadDim;
}

AttentionPlan plan_attention(const AttentionShape& shape, std::int64_t batch, std::int64_t max_rows,
                             std::int64_t max_keys) {
  const std::int64_t packed = max_rows * (shape.num_heads / shape.num_kv_heads);
  const bool fixed = shape.fixed_splits > 0;
  AttentionPlan plan;
  plan.max_rows = max_rows;
  plan.max_keys = max_keys;
  plan.decode = packed <= kDecodeRows;
  if (fixed) plan.splits = std::min(shape.fixed_splits, kMostSplits);
  if (plan.decode) {
    plan.row_tiles = 1;
    plan.decode_items = batch * shape.num_kv_heads;
    plan.decode_rows = packed <= 8 && !fixed ? 8 : 16;
    const bool may = !fixed && plan.decode_rows == 8 && max_rows == 1 &&
                     shape.head_dim == kLeanHeadDim && shape.clusters;
    if (may && shape.decode.lean) plan.way = shape.decode;
    if (!fixed) {
      plan.splits = decode_splits(shape, plan);
      plan.way.mail = mails(shape, plan, plan.splits);
      if (!plan.way.mail) {
        const int cluster = cluster_size(shape, plan);
        plan.cluster = cluster > 1;
        if (plan.cluster) plan.splits = cluster;
      }
      plan.way.two_blocks =
          plan.way.lean && plan.decode_items * plan.splits > shape.multiprocessors;
    }
    return plan;
  }
  const int tile = tile_of(shape);
  const std::int64_t large_blocks =
      batch * shape.num_kv_heads * ceil_div(packed, prefill_rows(tile, false));
  plan.small_tiles =
      packed <= prefill_rows(tile, true) || (!fixed && large_blocks < shape.multiprocessors);
  plan.row_tiles = ceil_div(packed, prefill_rows(tile, plan.small_tiles));
  const std::int64_t blocks = batch * shape.num_kv_heads * plan.row_tiles;
  if (!fixed) plan.splits = prefill_splits(shape, plan, std::max<std::int64_t>(1, blocks));
  return plan;
}

bool combines_in_kernel(const AttentionPlan& plan) {
  return plan.decode && plan.splits > 1 && (plan.cluster || plan.decode_items <= kCounters);
}

std::int64_t mail_floats(const AttentionShape& shape) {
  if (!shape.decode.mail) return 0;
  // Six words for each unit of four channels of up to 8 rows, and one more unit for each split.
  return std::int64_t{shape.multiprocessors} * 2 * 6 * (8 * kLeanHeadDim / 4 + kMostSplits);
}

std::int64_t partial_floats(const AttentionPlan& plan, std::int64_t tokens, std::int64_t num_heads,
                            std::int64_t head_dim_v) {
  if (plan.splits == 1 || plan.cluster) return 0;
  return plan.splits * tokens * num_heads * (head_dim_v + 2);
}

}  // namespace attn::gpu
