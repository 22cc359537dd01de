// Products of gptq's weights by clusters, the kernel's source and its host code, on emulated blocks
// and clusters. x is of small whole numbers and weights are multiples of one unit, so that sums are
// exact in any order and results equal to the bit what the weights are that the layer declares.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <random>
#include <string>

#include "tests/gpu/gptq_problem.h"
// After the emulator: kernel source.
#include "gpu/kernels/coded_cluster.cuh"
#include "gpu/kernels/coded_cluster.h"
#include "gpu/kernels/coded_cluster_launch.h"

namespace attn::gpu {
namespace {

std::string cluster_mistake;
std::uint64_t cluster_seed = 0;
emulator::Starved cluster_starved;

template <typename T>
void emulate(const CodedGemmArguments& a, const CodedClusterPlan& plan, const CUtensorMap& x) {
  emulator::Grid grid;
  grid.x = plan.tiles;
  grid.y = plan.tiles_of_x;
  grid.z = grid.cluster = plan.blocks;
  grid.shared = plan.shared_bytes;
  const int threads = 128 * plan.groups * plan.sets;
  cluster_mistake = emulator::run(grid, threads, cluster_seed, cluster_starved, [&] {
    switch (plan.columns) {
      case 16:
        return coded_cluster_kernel<T, 16>(a, x, plan.groups, plan.sets_shift(), plan.parts_shift(),
                                           plan.stages);
      case 32:
        return coded_cluster_kernel<T, 32>(a, x, plan.groups, plan.sets_shift(), plan.parts_shift(),
                                           plan.stages);
      case 64:
        return coded_cluster_kernel<T, 64>(a, x, plan.groups, plan.sets_shift(), plan.parts_shift(),
                                           plan.stages);
      default:
        return coded_cluster_kernel<T, 128>(a, x, plan.groups, plan.sets_shift(),
                                            plan.parts_shift(), plan.stages);
    }
  });
}

}  // namespace

// In place of those that launch.
void launch_cluster_bf16(const CodedGemmArguments& a, const CodedClusterPlan& plan,
                         const CUtensorMap& x, cudaStream_t) {
  emulate<Bf16>(a, plan, x);
}
void launch_cluster_half(const CodedGemmArguments& a, const CodedClusterPlan& plan,
                         const CUtensorMap& x, cudaStream_t) {
  emulate<Half>(a, plan, x);
}
int clusters_at_once(int) { return 0; }

namespace {

using namespace gptq_test;

/// How a test wants a product shared out: blocks at once by size of cluster, shared memory.
struct Shares {
  ClusterPlaces places{{1, 1, 1, 1}};
  std::size_t shared_limit = kEmulatedShared;
};

/// "" or the first mistake of a product.
std::string mistake_in(const Problem& p, const Shares& shares, std::uint64_t seed,
                       emulator::Starved starved = {}) {
  std::mt19937_64 random(seed);
  const Weight weight(p, random);
  Operands operands(p, random);
  const CodedClusterPlan plan =
      plan_coded_cluster(weight.matrix, p.rows, shares.places, shares.shared_limit);
  if (!plan.taken) return "not taken";
  if (plan.shared_bytes > shares.shared_limit) return "more shared memory than there is";
  const CodedGemmArguments a = operands.arguments(p, weight);
  emulator::copy_only_from(weight.places);
  const std::vector<std::uint16_t> x = operands.x;
  std::fill(operands.x.begin(), operands.x.end(), std::uint16_t{0x7fff});
  emulator::previous_grid = [&] { std::copy(x.begin(), x.end(), operands.x.begin()); };
  cluster_seed = seed;
  cluster_starved = starved;
  coded_cluster(a, plan, nullptr);
  if (!cluster_mistake.empty()) return cluster_mistake;
  if (emulator::wrote_behind(plan.shared_bytes)) return "more shared memory than planned";
  return operands.mistake(p, weight);
}

std::uint64_t calls() {
  const char* const wanted = std::getenv("ATTN_EMULATED_CALLS");
  return wanted == nullptr ? 24 : std::strtoull(wanted, nullptr, 10);
}

Problem draw_problem(std::uint64_t seed, Shares& shares) {
  std::mt19937_64 random(seed ^ 0xc105);
  const auto draw = [&](int from, int to) {
    return std::uniform_int_distribution<int>(from, to)(random);
  };
  Problem p;
  p.group = std::array{16, 32, 64, 128, 256, 512, -1}.at(seed % 7);
  const int unit = p.group > 0 ? p.group : 8;
  p.width = unit * draw(1, std::max(1, 700 / unit));
  if (random() % 8 == 0) p.width = (2600 + unit - 1) / unit * unit;  // rings that turn
  if (p.group >= p.width) p.group = -1;
  p.out = 8 * draw(1, 30);
  p.rows = random() % 6 == 0 ? draw(65, 140) : random() % 2 == 0 ? draw(17, 64) : draw(1, 32);
  p.type = random() % 2 == 0 ? Type::kBFloat16 : Type::kFloat16;
  p.bias = random() % 2 == 0;
  p.clip = std::array{1.5f, 0.0f, kNoBound, kNoBound}.at(random() % 4);
  p.unit = std::array{0x1p-12, 0x1p-9, 0x1p-8}.at(random() % 3);
  for (int& blocks : shares.places.blocks) blocks = std::array{0, 1, 9, 1000}.at(random() % 4);
  shares.places.blocks[0] = std::max(shares.places.blocks[0], 1);
  if (random() % 2 == 0) shares.shared_limit = at(draw(90, 160)) * 1024;
  return p;
}

TEST(CodedCluster, EqualsTheDeclaredWeightsToTheBit) {
  for (std::uint64_t seed = 0; seed < calls(); ++seed) {
    Shares shares;
    const Problem p = draw_problem(seed, shares);
    const std::string wrong = mistake_in(p, shares, seed);
    EXPECT_EQ(wrong == "not taken" ? "" : wrong, "") << "seed " << seed << ": " << p.text();
  }
}

/// Each tile of x, in clusters of each size, and numbers of rows that end within 16.
TEST(CodedCluster, TakesEachSizeOfClusterAndTile) {
  std::uint64_t seed = 0;
  for (const int i : {0, 1, 2, 3}) {
    for (const int rows : {1, 15, 31, 64, 130}) {
      if (i == 3 && rows <= 16) continue;  // not more than four parts
      Shares shares;
      shares.places.blocks = {0, 0, 0, 0};
      shares.places.blocks[at(i)] = 132;
      Problem p;
      p.rows = rows;
      p.width = 1032;  // a last chunk of 8 columns, alone in its pair
      p.group = -1;
      p.out = 136;
      EXPECT_EQ(mistake_in(p, shares, ++seed), "") << i << ", " << p.text();
    }
  }
}

/// Scales below a half and above, by each way that weights are made; parts that begin within a
/// group.
TEST(CodedCluster, MakesWeightsOfGroupsOfEachWidth) {
  std::uint64_t seed = 0;
  for (const int group : {16, 32, 64, 128, 256, 512, 1024, -1}) {
    for (const double unit : {0x1p-12, 0x1p-8}) {
      Shares shares;
      shares.places.blocks = {0, 0, 0, 0};
      shares.places.blocks[++seed % 3] = 132;
      Problem p;
      p.group = group;
      p.unit = unit;
      p.rows = seed % 2 == 0 ? 5 : 20;
      p.width = group == 1024 ? 3072 : 1536;
      p.out = 48;
      p.bias = true;
      EXPECT_EQ(mistake_in(p, shares, seed), "") << p.text();
    }
  }
}

/// Single warps, and single threads, of all blocks or one, behind all others; rings of few stages.
TEST(CodedCluster, WaitsForWhoeverIsLate) {
  for (int warp = 0; warp < 16; ++warp) {
    Shares shares;
    shares.places.blocks = {0, 1, 0, 0};
    shares.shared_limit = std::size_t{150} * 1024;
    Problem p;
    p.rows = warp % 4 == 0 ? 64 : 20;
    p.width = 4096;
    p.out = 128;
    EXPECT_EQ(mistake_in(p, shares, 7, {32 * warp, warp % 3 == 0 ? 1 : 32, warp % 4 - 1}), "")
        << warp;
  }
}

/// A whole block of a cluster behind the others: they must not leave it sums before it has begun.
TEST(CodedCluster, WaitsForTheOtherBlocksToBegin) {
  for (int rank = 0; rank < 4; ++rank) {
    Shares shares;
    shares.places.blocks = {0, 0, 1, 0};
    Problem p;
    p.rows = 20;
    p.width = 1024;
    p.out = 64;
    EXPECT_EQ(mistake_in(p, shares, 8, {0, 512, rank}), "") << rank;
  }
}

TEST(CodedCluster, SaysWhatItTakes) {
  std::mt19937_64 random(1);
  CodedMatrix w = Weight(Problem{}, random).matrix;
  w.rows = 6144;
  w.chunks = 64;
  const auto plan_of = [&](std::int64_t m, const ClusterPlaces& places) {
    return plan_coded_cluster(w, m, places, kEmulatedShared);
  };
  const ClusterPlaces h200{{132, 132, 120, 120}};
  for (const int rows : {1, 16, 17, 32, 64}) {
    const CodedClusterPlan plan = plan_of(rows, h200);
    EXPECT_TRUE(plan.taken);
    EXPECT_EQ(plan.groups, 2) << rows;
    EXPECT_EQ(plan.sets, 2) << rows;
    EXPECT_EQ(plan.blocks, 2) << rows;
    EXPECT_LE(plan.shared_bytes, kEmulatedShared);
  }
  EXPECT_EQ(plan_of(128, h200).tiles, 48);
  EXPECT_EQ(plan_of(256, h200).groups, 3);
  EXPECT_EQ(plan_of(256, h200).tiles_of_x, 2);
  EXPECT_FALSE(plan_of(64, {}).taken);
  EXPECT_FALSE(plan_of(kMostClusterRows + 1, h200).taken);
  EXPECT_FALSE(plan_coded_cluster(w, 64, h200, std::size_t{40} * 1024).taken);
  w.kind = CodeKind::kI8;
  EXPECT_FALSE(plan_of(64, h200).taken);
}

}  // namespace
}  // namespace attn::gpu
