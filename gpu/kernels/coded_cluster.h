#pragma once

#include <array>
#include <string>
#include <string_view>

#include "gpu/kernels/coded_cluster_shape.h"
#include "gpu/kernels/coded_gemm.h"

namespace attn::gpu {

/// The most rows of x that plan_coded_cluster() takes.
inline constexpr std::int64_t kMostClusterRows = 256;

/// "" when coded_cluster() multiplies by `w`, else one line why not.
std::string cluster_refusal(const CodedMatrix& w);

/// Blocks of one a multiprocessor that run at once on the current device in clusters of 1, 2, 4 and
/// 8; all 0 where it does not run the code. Asked once for each device.
struct ClusterPlaces {
  std::array<int, 4> blocks{};
};
ClusterPlaces cluster_places();

/// `m` rows of x, of k columns that lie in `w`. Not taken: no places, more than kMostClusterRows
/// rows, a weight with a refusal, no room in the `shared_limit` bytes of a block's shared memory.
CodedClusterPlan plan_coded_cluster(const CodedMatrix& w, std::int64_t m,
                                    const ClusterPlaces& places, std::size_t shared_limit);

/// Of a word of the backend's option "coded": "cluster", "few", or any other.
CodedClusters cluster_use(std::string_view word);

/// Whether the product of `m` rows was measured faster so than by the other kernels.
bool cluster_pays(std::int64_t m);

/// The product of a plan that is taken; x and y are of the type that weights are rounded to,
/// x_scale and x_sum are not read.
void coded_cluster(const CodedGemmArguments& a, const CodedClusterPlan& plan, StreamHandle stream);

}  // namespace attn::gpu
