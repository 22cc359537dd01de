// The streamed products of float32 activations with gguf's weights, likewise: with one 1 in a row
// of x, results are to the bit the weights that the reference decodes; with any x they are as far
// from float64 as sums of float32 may be.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "tests/gpu/coded_stream_problem.h"
// After the emulator: kernel source.
#include "gpu/kernels/coded_stream.h"
#include "gpu/kernels/coded_stream_floats.cuh"
#include "reference/formats/gguf.h"

namespace attn::gpu {
namespace {

using namespace stream_test;

template <CodeKind kKind, bool kSuper>
std::string run_kernel(const CodedGemmArguments& a, const CodedStreamPlan& plan,
                       std::uint64_t seed) {
  const int units = float_stream_units(a.k);
  return emulator::run(plan.blocks, kStreamThreads, seed, {}, [&] {
    if (a.m == 1) return coded_stream_floats<kKind, kSuper, 1>(a, units, plan.tiles);
    coded_stream_floats<kKind, kSuper, kMostFloatStreamRows>(a, units, plan.tiles);
  });
}
std::string launch(const CodedGemmArguments& a, const CodedStreamPlan& plan, std::uint64_t seed) {
  if (a.w.outer.bytes == 0) {
    return a.w.kind == CodeKind::kI8 ? run_kernel<CodeKind::kI8, false>(a, plan, seed)
                                     : run_kernel<CodeKind::kU4, false>(a, plan, seed);
  }
  if (a.w.kind == CodeKind::kU4) return run_kernel<CodeKind::kU4, true>(a, plan, seed);
  if (a.w.kind == CodeKind::kU5) return run_kernel<CodeKind::kU5, true>(a, plan, seed);
  return run_kernel<CodeKind::kU6, true>(a, plan, seed);
}

/// "" or the first mistake. `single`: each row of x has one 1 and zeros.
std::string mistake_in(const Problem& p, std::uint64_t seed, bool single) {
  std::mt19937_64 random(seed);
  const Tensor stored = random_blocks(p, random);
  const Weight weight(p, stored);
  const reference::Matrix w = reference::decode_gguf(p.format.encoding, stored);
  const CodedStreamPlan plan =
      plan_coded_stream(weight.matrix, p.rows, p.width, 0, p.multiprocessors, kEmulatedShared);
  if (!plan.taken || !plan.floats) return "not taken";
  std::vector<float> x(at(p.rows * p.width), 0.0f);
  std::normal_distribution<float> normal;
  for (int m = 0; m < p.rows; ++m) {
    for (int k = 0; k < p.width; ++k) x[at(m * p.width + k)] = single ? 0.0f : normal(random);
    if (single) x[at(m * p.width) + random() % at(p.width)] = 1.0f;
  }
  std::vector<float> bias;
  for (int n = 0; n < p.out; ++n) bias.push_back(normal(random));
  const int stride = p.out + 3;
  std::vector<float> y(at(p.rows * stride), std::numeric_limits<float>::quiet_NaN());
  CodedGemmArguments a;
  a.w = weight.matrix;
  a.x = x.data();
  a.x_type = a.out_type = Type::kFloat32;
  a.x_stride = a.k = p.width;
  a.bias = p.bias ? bias.data() : nullptr;
  a.y = y.data();
  a.y_stride = stride;
  a.m = p.rows;
  a.n = p.out;
  emulator::copy_only_from(weight.places);
  if (const std::string wrong = launch(a, plan, seed); !wrong.empty()) return wrong;
  if (emulator::wrote_behind(plan.shared_bytes)) return "more shared memory than planned";
  for (int m = 0; m < p.rows; ++m) {
    for (int n = 0; n < stride; ++n) {
      const float got = y[at(m * stride + n)];
      const std::string where = "row " + std::to_string(m) + ", column " + std::to_string(n) + ": ";
      if (n >= p.out) {
        if (!std::isnan(got)) return where + "written, and not of this product";
        continue;
      }
      double sum = 0.0;
      double magnitude = 0.0;
      for (int k = 0; k < p.width; ++k) {
        const double term = static_cast<double>(x[at(m * p.width + k)]) * w(n, k);
        sum += term;
        magnitude += std::abs(term);
      }
      if (p.bias) sum += static_cast<double>(bias[at(n)]);
      if (p.bias) magnitude += std::abs(static_cast<double>(bias[at(n)]));
      // A lane adds a quarter of the columns of its stages, then lanes, warps and the bias.
      const double allowed = single && !p.bias ? 0.0 : 0x1p-24 * (p.width / 4.0 + 20) * magnitude;
      if (!(std::abs(static_cast<double>(got) - sum) <= allowed)) {
        return where + std::to_string(got) + ", wanted " + std::to_string(sum);
      }
    }
  }
  return "";
}

TEST(CodedStreamFloats, MakesTheDeclaredWeightsToTheBitAndSums) {
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    std::mt19937_64 random(seed ^ 0xf10a);
    const auto draw = [&](int from, int to) {
      return std::uniform_int_distribution<int>(from, to)(random);
    };
    Problem p;
    p.format = kFormats.at(seed % kFormats.size());
    const bool deep = seed / 5 % 3 == 0;
    p.width = p.block() == kStreamUnit ? kStreamUnit * (deep ? draw(6, 10) : draw(1, 4))
                                       : 32 * (deep ? draw(48, 80) : draw(2, 30));
    p.out = 2 * (deep ? draw(56, 64) : draw(1, 60));
    p.rows = seed % 2 == 0 ? 1 : draw(2, kMostFloatStreamRows);
    p.bias = random() % 3 == 0;
    p.multiprocessors = deep ? 1 : draw(1, 9);
    EXPECT_EQ(mistake_in(p, seed, seed % 4 < 2), "") << "seed " << seed << ": " << p.text();
  }
}

/// Every column of every format, each by itself.
TEST(CodedStreamFloats, ReadsEachColumn) {
  for (const Format& format : kFormats) {
    Problem p;
    p.format = format;
    p.width = kStreamUnit;
    p.out = 16;
    std::mt19937_64 random(9);
    const Tensor stored = random_blocks(p, random);
    const Weight weight(p, stored);
    const reference::Matrix w = reference::decode_gguf(format.encoding, stored);
    const CodedStreamPlan plan =
        plan_coded_stream(weight.matrix, 1, p.width, 0, 1, kEmulatedShared);
    ASSERT_TRUE(plan.taken);
    for (int k = 0; k < p.width; k += 3) {
      std::vector<float> x(at(p.width), 0.0f);
      std::vector<float> y(at(p.out));
      x[at(k)] = 1.0f;
      CodedGemmArguments a;
      a.w = weight.matrix;
      a.x = x.data();
      a.x_type = a.out_type = Type::kFloat32;
      a.x_stride = a.k = p.width;
      a.y = y.data();
      a.y_stride = a.n = p.out;
      a.m = 1;
      emulator::copy_only_from(weight.places);
      ASSERT_EQ(launch(a, plan, 3), "");
      for (int n = 0; n < p.out; ++n) {
        ASSERT_EQ(static_cast<double>(y[at(n)]), w(n, k)) << format.name << " column " << k;
      }
    }
  }
}

TEST(CodedStreamFloats, SaysWhatItTakes) {
  Problem p;
  p.format = kFormats[2];
  p.width = 512;
  std::mt19937_64 random(1);
  CodedMatrix w = Weight(p, random_blocks(p, random)).matrix;
  w.rows = 6144;
  w.chunks = 64;
  const auto plan_of = [&](std::int64_t m) {
    return plan_coded_stream(w, m, 4096, 0, 132, 227 * 1024);
  };
  EXPECT_TRUE(plan_of(1).floats);
  EXPECT_TRUE(plan_of(1).taken);
  EXPECT_EQ(plan_of(1).blocks, 128);
  EXPECT_LE(2 * (plan_of(1).shared_bytes + 1024), 228U * 1024);
  EXPECT_TRUE(plan_of(kMostFloatStreamRows).taken);
  EXPECT_EQ(plan_of(kMostFloatStreamRows).image_bytes, 0U);
  EXPECT_FALSE(plan_of(kMostFloatStreamRows + 1).taken);
}

}  // namespace
}  // namespace attn::gpu
