#include <algorithm>

#include "gpu/kernels/coded_stream.h"

namespace attn::gpu {
namespace {

bool is_super(const CodedMatrix& w) { return w.outer.bytes > 0; }

template <CodeKind kKind, bool kSuper>
int stage_bytes() {
  using Stage = StreamStage<kKind, kSuper>;
  return Stage::kDepth * Stage::kEnd;
}
/// Of a warp's stages in shared memory.
int bytes_of_ring(const CodedMatrix& w) {
  if (w.scaling == CodeScaling::kWeight) {
    return kStreamDepth * (w.group_shift >= 6 ? WeightStage<true>::kEnd : WeightStage<false>::kEnd);
  }
  if (!is_super(w)) {
    return w.kind == CodeKind::kI8 ? stage_bytes<CodeKind::kI8, false>()
                                   : stage_bytes<CodeKind::kU4, false>();
  }
  return w.kind == CodeKind::kU4   ? stage_bytes<CodeKind::kU4, true>()
         : w.kind == CodeKind::kU5 ? stage_bytes<CodeKind::kU5, true>()
                                   : stage_bytes<CodeKind::kU6, true>();
}

/// One row by a kernel of its own: q4_k, and gptq in groups of two chunks and more and widths of
/// whole stages.
bool takes_one_row(const CodedMatrix& w, std::int64_t m, std::int64_t k, std::int64_t block) {
  if (m != 1 || !stream_refusal(w).empty()) return false;
  if (w.scaling == CodeScaling::kWeight) return w.group_shift >= 7 && k % kStreamUnit == 0;
  return is_super(w) && w.kind == CodeKind::kU4 && block == kStreamUnit;
}

/// Two blocks a multiprocessor. Those for which the product before leaves room come early.
void plan_one_row(const CodedMatrix& w, int multiprocessors, CodedStreamPlan& plan) {
  const bool weights = w.scaling == CodeScaling::kWeight;
  const std::int64_t tiles = w.rows / kCodedTile;
  const std::int64_t places = 2 * static_cast<std::int64_t>(multiprocessors);
  plan.tiles = static_cast<int>(
      std::clamp<std::int64_t>((tiles + places - 1) / places, 1, kMostStreamTiles));
  plan.blocks = static_cast<int>((tiles + plan.tiles - 1) / plan.tiles);
  plan.early = static_cast<int>(std::max<std::int64_t>(places - plan.blocks, 0));
  constexpr int kMostAsked = 3;  // blocks for which one asks: a single thread does
  if (plan.blocks > (1 + kMostAsked) * plan.early) plan.early = 0;
  const int of_warp =
      weights ? kOneRowDepth * kOneRowWeightsJob + 2 * kStreamUnit : kOneRowDepth * kOneRowCodesJob;
  plan.shared_bytes =
      kStreamWarps * (static_cast<std::size_t>(of_warp) +
                      sizeof(float) * kCodedTile * static_cast<std::size_t>(plan.tiles));
  plan.one_row = plan.fused = true;
}

}  // namespace

std::string stream_refusal(const CodedMatrix& w) {
  if (w.scaling == CodeScaling::kWeight) {
    return w.kind == CodeKind::kU4 ? "" : "scales enter weights of 8 bits";
  }
  if (w.scaling != CodeScaling::kGroup) return "scales are not those of groups of columns";
  const bool has_min = w.inner_min.bytes > 0;
  if (is_super(w)) {
    const bool known = (w.kind == CodeKind::kU4 && has_min) ||
                       (w.kind == CodeKind::kU5 && has_min) ||
                       (w.kind == CodeKind::kU6 && !has_min && w.offset == 32);
    if (!known) return "no k-quant has these codes";
    if (w.inner_type != ScaleType::kByte) return "scales within 256 columns are no bytes";
    if (w.group_shift != (w.kind == CodeKind::kU6 ? 4 : 5)) return "groups of other widths";
    return w.chunks % 4 == 0 ? "" : "columns are no multiple of 256";
  }
  const bool known = w.kind == CodeKind::kI8 || (w.kind == CodeKind::kU4 && w.offset == 8);
  if (!known || has_min || w.global != 1.0f || w.inner_bias != 0.0f) {
    return "neither q4_0 nor q8_0";
  }
  if (w.inner_type != ScaleType::kFloat16) return "scales fit in fewer bits than float16's";
  return w.group_shift == 5 ? "" : "groups are not 32 columns";
}

StreamImage stream_image_of(const CodedMatrix& w, std::int64_t m, std::int64_t k) {
  const int group = !is_super(w) ? 0 : w.kind == CodeKind::kU6 ? 16 : 32;
  return stream_image(static_cast<int>(m), k, is_super(w) ? kStreamUnit : 32, group);
}

CodedStreams stream_use(std::string_view word) {
  return word == "stream" ? CodedStreams::kAlways
         : word == "few"  ? CodedStreams::kNever
                          : CodedStreams::kWhereTheyPay;
}

bool stream_pays(const CodedMatrix& w, std::int64_t m, std::int64_t k, std::int64_t block) {
  // The most rows for which it does; docs/kernels.md has the figures. gptq's weights are decoded by
  // as many instructions either way.
  constexpr std::int64_t kOfFloats = 4;
  constexpr std::int64_t kOfCodes = 16;
  if (w.scaling == CodeScaling::kWeight) return takes_one_row(w, m, k, block);
  return m <= (block == 0 ? kOfFloats : kOfCodes);
}

CodedStreamPlan plan_coded_stream(const CodedMatrix& w, std::int64_t m, std::int64_t k,
                                  std::int64_t block, int multiprocessors,
                                  std::size_t shared_limit) {
  CodedStreamPlan plan;
  const bool weights = w.scaling == CodeScaling::kWeight;
  const bool floats = !weights && block == 0;
  const int most = weights  ? kMostWeightStreamRows
                   : floats ? kMostFloatStreamRows
                            : kMostStreamRows;
  if (m < 1 || m > most || !stream_refusal(w).empty()) return plan;
  if (block != (weights || floats ? 0 : is_super(w) ? kStreamUnit : 32)) return plan;
  plan.floats = floats;
  if (!weights && k % 32 != 0) return plan;
  if (takes_one_row(w, m, k, block)) {
    plan_one_row(w, multiprocessors, plan);
    plan.taken = plan.shared_bytes <= shared_limit;
    return plan;
  }
  const std::int64_t tiles = w.rows / kCodedTile;
  const std::int64_t each = (tiles + multiprocessors - 1) / multiprocessors;
  const bool held = weights && m > kMostUnheldRows;
  plan.tiles =
      static_cast<int>(std::clamp<std::int64_t>(each, 1, held ? kMostHeldTiles : kMostStreamTiles));
  const auto rows = static_cast<std::size_t>(m);
  const std::size_t x =
      floats    ? 4 * rows * kStreamUnit * static_cast<std::size_t>(float_stream_units(k))
      : weights ? rows * static_cast<std::size_t>(weight_x_stride(w))
                : static_cast<std::size_t>(stream_image_of(w, m, k).bytes);
  const std::size_t ring = static_cast<std::size_t>(bytes_of_ring(w)) * kStreamWarps;
  const auto shared = [&] {
    const std::size_t sums =
        sizeof(float) * kStreamWarps * kCodedTile * rows * static_cast<std::size_t>(plan.tiles);
    return ring + (held ? std::max(x, sums) : x + sums);
  };
  // Codes times codes wait for each other's results more than for anything: twice the warps of a
  // multiprocessor are worth more than blocks that are all alike.
  if (!weights && !floats) {
    const int given = plan.tiles;
    plan.tiles = static_cast<int>(std::clamp<std::int64_t>(
        (tiles + 2 * multiprocessors - 1) / (2 * multiprocessors), 1, kMostStreamTiles));
    if (2 * (shared() + kSharedOfSystem) > kSharedOfMultiprocessor || m > kMostPairedRows) {
      plan.tiles = given;
    }
  }
  while (plan.tiles > 1 && shared() > shared_limit) --plan.tiles;
  plan.blocks = static_cast<int>((tiles + plan.tiles - 1) / plan.tiles);
  plan.shared_bytes = shared();
  plan.taken = plan.shared_bytes <= shared_limit;
  plan.fused = weights || floats || m <= kMostFusedRows;
  if (plan.taken && !plan.fused) plan.image_bytes = x;
  return plan;
}

}  // namespace attn::gpu
