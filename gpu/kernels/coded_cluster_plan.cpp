#include <cuda_runtime_api.h>

#include <algorithm>
#include <bit>
#include <map>
#include <mutex>

#include "gpu/device/check.h"
#include "gpu/kernels/coded_cluster.h"
#include "gpu/kernels/coded_cluster_launch.h"
#include "gpu/kernels/coded_launch.h"
#include "gpu/kernels/tensor_map.h"

namespace attn::gpu {
namespace {

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

int columns_of(std::int64_t m) { return m <= 16 ? 16 : m <= 32 ? 32 : m <= 64 ? 64 : 128; }

/// Of a ClusterTile.
struct TileShape {
  int units = 0, depth = 0, warpgroups = 0;
};
template <int kColumns>
TileShape shape_of() {
  using Tile = ClusterTile<kColumns>;
  return {Tile::kUnits, Tile::kDepth, Tile::kMostWarpgroups};
}
TileShape tile_shape(int columns) {
  return columns == 16   ? shape_of<16>()
         : columns == 32 ? shape_of<32>()
         : columns == 64 ? shape_of<64>()
                         : shape_of<128>();
}

std::size_t shared_bytes(const CodedMatrix& w, const CodedClusterPlan& plan, int stages) {
  constexpr std::size_t kAlignment = 1024;
  return static_cast<std::size_t>(cluster_memory(w, plan.groups, plan.sets, plan.parts_shift(),
                                                 plan.columns, tile_shape(plan.columns).depth,
                                                 stages)
                                      .bytes) +
         kAlignment;
}

/// Stages of x that there is room for; 0: too few to keep the tensor cores busy.
int stages_of(const CodedMatrix& w, const CodedClusterPlan& plan, std::size_t shared_limit) {
  constexpr int kFewest = 3;
  const int most = static_cast<int>(ceil_div(cluster_pairs(w), plan.parts()));
  const std::size_t without = shared_bytes(w, plan, 0);
  if (without >= shared_limit) return 0;
  const auto room =
      static_cast<int>((shared_limit - without) /
                       static_cast<std::size_t>(plan.sets * plan.columns * 2 * kClusterPair));
  const int stages = std::min({room, most, kMostClusterStages});
  return stages >= std::min(most, kFewest) ? stages : 0;
}

/// About what a product takes, in 128 clocks: what the tensor cores take for a chunk of 64 rows of
/// W and of x.
double cost_of(const CodedMatrix& w, const CodedClusterPlan& plan, int places) {
  constexpr double kStartAndEnd = 14.0;
  constexpr double kOfChunk = 3.2;             // a warp's instructions, one after the other
  constexpr double kBytesOfUnit = 34.0 * 128;  // that come to a multiprocessor
  const auto blocks = static_cast<std::int64_t>(plan.tiles) * plan.tiles_of_x * plan.blocks;
  const auto pairs = static_cast<double>(ceil_div(cluster_pairs(w), plan.parts()));
  const double chunks = 2.0 * pairs * plan.sets;  // of a block
  const double products = chunks * plan.groups * std::max(plan.columns, 40) / 64.0;
  const double waits = 2.0 * pairs * kOfChunk;
  const double bytes =
      chunks * (2.0 * kCodedChunk * plan.columns + 32.0 * kClusterGroupRows * plan.groups);
  return static_cast<double>(ceil_div(blocks, places)) *
         (kStartAndEnd + std::max({products, waits, bytes / kBytesOfUnit}));
}

}  // namespace

std::string cluster_refusal(const CodedMatrix& w) {
  if (w.scaling != CodeScaling::kWeight) return "scales do not enter the weights";
  return w.kind == CodeKind::kU4 ? "" : "codes are not of 4 bits";
}

CodedClusters cluster_use(std::string_view word) {
  return word == "cluster" ? CodedClusters::kAlways
         : word == "few"   ? CodedClusters::kNever
                           : CodedClusters::kWhereTheyPay;
}

bool cluster_pays(std::int64_t m) {
  constexpr std::int64_t kFewest = 17;  // docs/kernels.md has the figures
  return m >= kFewest;
}

ClusterPlaces cluster_places() {
  static std::mutex mutex;
  static std::map<int, ClusterPlaces> known;
  if (!has_wide_kernels()) return {};
  int device = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  const std::lock_guard lock(mutex);
  const auto found = known.find(device);
  if (found != known.end()) return found->second;
  ClusterPlaces places;
  for (std::size_t i = 0; i < places.blocks.size(); ++i) {
    places.blocks[i] = clusters_at_once(1 << i) << i;
  }
  return known[device] = places;
}

CodedClusterPlan plan_coded_cluster(const CodedMatrix& w, std::int64_t m,
                                    const ClusterPlaces& places, std::size_t shared_limit) {
  CodedClusterPlan best;
  if (m < 1 || m > kMostClusterRows || !cluster_refusal(w).empty()) return best;
  double least = 0.0;
  const auto consider = [&](int groups, int sets, int blocks) {
    CodedClusterPlan plan;
    plan.columns = columns_of(m);
    plan.groups = groups;
    plan.sets = sets;
    plan.blocks = blocks;
    const TileShape shape = tile_shape(plan.columns);
    if (groups * sets > shape.warpgroups || plan.parts() > shape.units) return;
    if (plan.parts() > cluster_pairs(w)) return;
    const int here = places.blocks[static_cast<std::size_t>(plan.blocks_shift())];
    plan.tiles = static_cast<int>(ceil_div(w.rows, kClusterGroupRows * groups));
    plan.tiles_of_x = static_cast<int>(ceil_div(m, plan.columns));
    plan.stages = stages_of(w, plan, shared_limit);
    if (here == 0 || plan.stages == 0) return;
    const double cost = cost_of(w, plan, here);
    if (best.taken && cost >= least) return;
    least = cost;
    best = plan;
    best.taken = true;
  };
  for (int groups = kMostClusterGroups; groups > 0; --groups) {
    for (int sets = kMostClusterSets; sets > 0; sets /= 2) {
      for (int blocks = 1; blocks <= kMostClusterBlocks; blocks *= 2) {
        consider(groups, sets, blocks);
      }
    }
  }
  if (best.taken) best.shared_bytes = shared_bytes(w, best, best.stages);
  return best;
}

void coded_cluster(const CodedGemmArguments& a, const CodedClusterPlan& plan, StreamHandle stream) {
  TensorMapShape<3> shape;
  shape.base = a.x;
  shape.type = a.x_type;
  shape.sizes = {static_cast<std::uint64_t>(a.k), static_cast<std::uint64_t>(a.m), 1};
  shape.strides = {static_cast<std::uint64_t>(2 * a.x_stride),
                   static_cast<std::uint64_t>(2 * a.x_stride * a.m)};
  shape.box = {kCodedChunk, static_cast<std::uint32_t>(plan.columns), 1};
  const CUtensorMap x = make_tensor_map(shape);
  if (a.x_type == Type::kFloat16) return launch_cluster_half(a, plan, x, stream);
  launch_cluster_bf16(a, plan, x, stream);
}

}  // namespace attn::gpu
