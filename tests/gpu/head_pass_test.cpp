// Both kernels of the pass over the heads on a device: what they leave is the same to the bit.
#include "tests/gpu/device_cases.h"
#include "tests/gpu/device_fixture.h"
#include "tests/gpu/seeds.h"

#if ATTN_WITH_CUDA

#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "gpu/device/device.h"
#include "gpu/kernels/head_pass_plan.h"
#include "tests/gpu/head_pass_problem.h"

namespace attn::harness {
namespace {

class HeadPass : public OnDevice {};

/// "" when both leave the same of all memory, else the first difference. `us`: of a call each.
std::string compare_kernels(const gpu::HeadPassCase& c, std::uint64_t seed, double (*us)[2]) {
  const gpu::HeadPassMemory problem(c, seed);
  const gpu::Stream stream;
  std::vector<std::byte> left[2];
  for (const bool rows : {false, true}) {
    const gpu::Buffer buffer(problem.bytes().size());
    const gpu::HeadPassArguments a = problem.arguments(buffer.data());
    const gpu::HeadPassPlan plan = gpu::plan_head_pass(a);
    if (!plan.rows()) return std::string(plan.refusal);
    if (a.batch.tokens == 0) return "";
    const auto pass = [&] {
      rows ? gpu::head_pass_rows(a, plan.warps, stream.get())
           : gpu::head_pass_general(a, stream.get());
    };
    gpu::copy_to_device(buffer.data(), problem.bytes().data(), problem.bytes().size(),
                        stream.get());
    pass();
    left[rows ? 1 : 0].resize(problem.bytes().size());
    gpu::copy_to_host(left[rows ? 1 : 0].data(), buffer.data(), problem.bytes().size(),
                      stream.get());
    stream.synchronize();
    if (us == nullptr) continue;
    gpu::Timer timer;
    timer.start(stream.get());
    for (int i = 0; i < 20; ++i) pass();
    timer.stop(stream.get());
    (*us)[rows ? 1 : 0] = timer.milliseconds() * 1000.0 / 20.0;
  }
  return gpu::first_difference(left[0], left[1]);
}

TEST_F(HeadPass, LeavesWhatTheGeneralKernelLeaves) {
  expect_none(for_each_seed(0, device_case_count(), [](std::uint64_t seed) {
    const gpu::HeadPassCase c = gpu::draw_head_pass(seed, seed % 8 == 0 ? 400 : 20);
    const std::string wrong = compare_kernels(c, seed, nullptr);
    return wrong.empty() ? wrong : wrong + ": " + c.text();
  }));
}

// And says what a call takes, one after the other on the same memory.
TEST_F(HeadPass, LeavesTheSameOfALargeCall) {
  gpu::HeadPassCase c;
  c.heads = 32;
  c.kv_heads = 8;
  c.page_size = 64;
  c.sequences = {{4096, 0}};
  for (const bool codes : {false, true}) {
    c.cache_type = codes ? gpu::Type::kFloat8E4M3 : gpu::Type::kBFloat16;
    c.scales = codes ? gpu::CacheScales::kTokenHead : gpu::CacheScales::kNone;
    for (const bool interleaved : {false, true}) {
      for (const bool norm : {false, true}) {
        c.interleaved = interleaved;
        c.norm = norm;
        double us[2] = {};
        EXPECT_EQ(compare_kernels(c, 0, &us), "") << c.text();
        std::printf("4096 rows, 32 + 2 * 8 heads of 128%s%s%s: %.1f us by rows, %.1f in general\n",
                    codes ? ", codes" : "", interleaved ? "" : ", halves", norm ? ", norm" : "",
                    us[1], us[0]);
      }
    }
  }
}

}  // namespace
}  // namespace attn::harness

#endif
