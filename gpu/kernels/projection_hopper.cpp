#include "gpu/kernels/projection_hopper.h"

#include <algorithm>

#include "gpu/kernels/projection_hopper_launch.h"
#include "gpu/kernels/projection_work.h"
#include "gpu/kernels/tensor_map.h"

namespace attn::gpu {
namespace {

// Below, the product's own kernels for few rows are faster.
constexpr std::int64_t kFewestRows = 128;
// Of the multiprocessors' time, what the blocks' tiles must fill: 70 %.
constexpr std::int64_t kFillNumerator = 7;
constexpr std::int64_t kFillDenominator = 10;
// Bounds of the kernel's 32-bit numbers, far from where they would overflow.
constexpr std::int64_t kMostRows = std::int64_t{1} << 29;
constexpr std::int64_t kMostTiles = std::int64_t{1} << 29;

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

std::int64_t tiles_of(const ProjectionShape& s, std::int64_t tokens) {
  const std::int64_t columns = (s.num_heads + 2 * s.num_kv_heads) * s.head_dim;
  return ceil_div(tokens, kProjectionRows) * ceil_div(columns, kProjectionColumns);
}

std::string refusal_of_call(const ProjectionShape& s, ProjectionUse use, int multiprocessors,
                            std::int64_t tokens) {
  if (use == ProjectionUse::kNever) return "not asked for";
  if (std::string reason = projection_refusal(s); !reason.empty()) return reason;
  const std::int64_t tiles = tiles_of(s, tokens);
  if (tokens == 0) return "no rows";
  if (tokens > kMostRows || tiles > kMostTiles) {
    return std::to_string(tokens) + " rows are beyond the kernel's numbers";
  }
  if (use == ProjectionUse::kAlways) return "";
  if (tokens < kFewestRows) {
    return std::to_string(tokens) + " rows, fewer than " + std::to_string(kFewestRows);
  }
  const std::int64_t places = ceil_div(tiles, multiprocessors) * multiprocessors;
  if (tiles * kFillDenominator < places * kFillNumerator) {
    return std::to_string(tiles) + " tiles leave " + std::to_string(multiprocessors) +
           " multiprocessors idle for more than " +
           std::to_string(100 - 100 * kFillNumerator / kFillDenominator) + " % of the time";
  }
  return "";
}

/// Rows of `columns` elements, in boxes of `rows`; an axis of one more makes it a map of three.
CUtensorMap operand_map(const void* base, Type type, std::int64_t rows, std::int64_t columns,
                        int box_rows) {
  TensorMapShape<3> shape;
  shape.base = base;
  shape.type = type;
  shape.sizes = {static_cast<std::uint64_t>(columns), static_cast<std::uint64_t>(rows), 1};
  shape.strides = {static_cast<std::uint64_t>(2 * columns),
                   static_cast<std::uint64_t>(2 * columns * rows)};
  shape.box = {kProjectionDepth, static_cast<std::uint32_t>(box_rows), 1};
  return make_tensor_map(shape);
}

}  // namespace

std::string projection_refusal(const ProjectionShape& s) {
  if (s.quantised) return "weights are quantised";
  if (s.type != Type::kBFloat16 && s.type != Type::kFloat16) {
    return "activations are neither bfloat16 nor float16";
  }
  if (s.cache_type != s.type) return "the cache has another type than the activations";
  if (s.head_dim != 64 && s.head_dim != 128) {
    return "head_dim " + std::to_string(s.head_dim) + " is neither 64 nor 128";
  }
  if (!s.interleaved && s.rotary_dim != s.head_dim) {
    return "rotary_dim " + std::to_string(s.rotary_dim) + " of head_dim " +
           std::to_string(s.head_dim) + " in halves is not implemented, only interleaved";
  }
  if (s.hidden_size % 8 != 0) {
    return "hidden_size " + std::to_string(s.hidden_size) + " is no multiple of 8";
  }
  return "";
}

ProjectionPlan plan_projection(const ProjectionShape& shape, ProjectionUse use, int multiprocessors,
                               std::int64_t tokens) {
  ProjectionPlan plan;
  plan.refusal = refusal_of_call(shape, use, multiprocessors, tokens);
  plan.taken = plan.refusal.empty();
  if (!plan.taken) return plan;
  plan.blocks = static_cast<int>(std::min<std::int64_t>(multiprocessors, tiles_of(shape, tokens)));
  return plan;
}

void projection_hopper(const GemmArguments& product, const HeadPassArguments& heads,
                       const ProjectionPlan& plan, StreamHandle stream) {
  ProjectionCall call;
  call.a = heads;
  call.bias = product.bias;
  call.clip = product.clip;
  call.qkv = product.y;
  call.row_tiles = static_cast<int>(ceil_div(product.m, kProjectionRows));
  call.column_tiles = static_cast<int>(ceil_div(product.n, kProjectionColumns));
  call.steps = static_cast<int>(ceil_div(product.k, kProjectionDepth));
  const ProjectionMaps maps{
      operand_map(product.x, product.type, product.m, product.k, kProjectionRows),
      operand_map(product.w, product.type, product.n, product.k, kProjectionColumns)};
  if (heads.head_dim == 64) return launch_projection<64>(maps, call, plan.blocks, stream);
  launch_projection<128>(maps, call, plan.blocks, stream);
}

}  // namespace attn::gpu
