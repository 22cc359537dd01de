#include <cuda_runtime_api.h>

#include <algorithm>
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
int depth_of(int columns) {
  return columns <= 64 ? ClusterTile<64>::kDepth : ClusterTile<128>::kDepth;
}
int units_of(int columns) {
  return columns == 16 ? ClusterTile<16>::kUnits : ClusterTile<64>::kUnits;
}

/// Stages of x that there is room for; 0: too few to keep the tensor cores busy.
int stages_of(const CodedMatrix& w, const CodedClusterPlan& plan, std::size_t shared_limit) {
  const auto most = static_cast<int>(ceil_div(w.chunks, plan.parts));
  const auto without =
      static_cast<std::size_t>(cluster_memory(w.inner.bytes, most, plan.groups, plan.parts,
                                              plan.columns, depth_of(plan.columns), 0)
                                   .bytes) +
      1024;
  if (without >= shared_limit) return 0;
  const auto room = static_cast<int>((shared_limit - without) /
                                     static_cast<std::size_t>(plan.columns * 2 * kCodedChunk));
  const int stages = std::min({room, most, kMostClusterStages});
  return stages >= std::min(most, 4) ? stages : 0;
}

/// About what a product takes, in chunks that a warpgroup multiplies by 64 rows of x; fewer than 48
/// rows take no less, as codes are decoded all the same.
double cost_of(const CodedMatrix& w, const CodedClusterPlan& plan, int places) {
  constexpr double kStartAndEnd = 16.0;
  const auto blocks = static_cast<std::int64_t>(plan.tiles) * plan.tiles_of_x * plan.parts;
  const double chunk = std::max(plan.columns, 48) / 64.0;
  return static_cast<double>(ceil_div(blocks, places)) *
         (kStartAndEnd + chunk * plan.groups * static_cast<double>(ceil_div(w.chunks, plan.parts)));
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
  for (int groups = kMostClusterGroups; groups > 0; --groups) {
    for (std::size_t i = 0; i < places.blocks.size(); ++i) {
      CodedClusterPlan plan;
      plan.columns = columns_of(m);
      plan.groups = groups;
      plan.parts = 1 << i;
      if (places.blocks[i] == 0 || plan.parts > units_of(plan.columns)) continue;
      if (plan.parts > w.chunks) continue;
      plan.tiles = static_cast<int>(ceil_div(w.rows, kClusterGroupRows * groups));
      plan.tiles_of_x = static_cast<int>(ceil_div(m, plan.columns));
      plan.stages = stages_of(w, plan, shared_limit);
      if (plan.stages == 0) continue;
      const double cost = cost_of(w, plan, places.blocks[i]);
      if (best.taken && cost >= least) continue;
      least = cost;
      best = plan;
      best.taken = true;
    }
  }
  if (!best.taken) return best;
  const auto most = static_cast<int>(ceil_div(w.chunks, best.parts));
  best.shared_bytes =
      static_cast<std::size_t>(cluster_memory(w.inner.bytes, most, best.groups, best.parts,
                                              best.columns, depth_of(best.columns), best.stages)
                                   .bytes) +
      1024;
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
