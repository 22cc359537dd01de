// The CUDA layers against the exact reference on random cases, and against themselves.
#include <algorithm>
#include <array>
#include <atomic>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "harness/compare/compare.h"
#include "harness/generate/case_spec.h"
#include "reference/core/error.h"
#include "tests/gpu/device_fixture.h"
#include "tests/gpu/seeds.h"

namespace attn::harness {
namespace {

/// Cases per test; ATTN_GPU_CASES raises it for a proof.
std::uint64_t case_count() { return environment_number("ATTN_GPU_CASES", 200); }

void expect_none(const std::vector<std::string>& complaints) {
  EXPECT_EQ(complaints.size(), 0U);
  for (std::size_t i = 0; i < std::min<std::size_t>(complaints.size(), 10); ++i) {
    ADD_FAILURE() << complaints[i];
  }
}

using GpuLayer = OnDevice;

TEST_F(GpuLayer, PassesRandomCases) {
  for (const char* spec : {"cuda", "cuda:splits=3", "cuda:attention=plain,gemm=own"}) {
    SCOPED_TRACE(spec);
    const auto backend = make_backend(spec);
    std::mutex mutex;
    std::map<Stage, double> largest;
    std::atomic<std::uint64_t> mistrusted{0};
    expect_none(for_each_seed(0, case_count(), [&](std::uint64_t seed) -> std::string {
      const Case c = make_case(random_small_spec(seed), seed);
      if (const std::string why = backend->unsupported_reason(c.config); !why.empty()) {
        return "unsupported: " + why;
      }
      const Trace trace = backend->run(c, all_stages());
      const Verdict verdict = compare(c, trace, backend->arithmetic(c.config));
      {
        const std::lock_guard lock(mutex);
        for (const StageReport& report : verdict.stages) {
          double& ratio = largest[report.stage];
          ratio = std::max(ratio, report.worst_ratio);
        }
      }
      if (verdict.status == Status::kMistrusted) ++mistrusted;
      return verdict.status == Status::kFailed ? verdict.detail + ": " + c.repro : "";
    }));
    for (const auto& [stage, ratio] : largest) {
      RecordProperty(std::string("largest_") + std::string(name_of(stage)), std::to_string(ratio));
      std::printf("%-32s %-10s largest error/bound %.3f\n", spec,
                  std::string(name_of(stage)).c_str(), ratio);
    }
    std::printf("%-32s %llu mistrusted\n", spec,
                static_cast<unsigned long long>(mistrusted.load()));
  }
}

TEST_F(GpuLayer, FusedAndUnfusedHeadPassAgreeToTheBit) {
  const auto fused = make_backend("cuda");
  const auto unfused = make_backend("cuda:fused=0");
  std::atomic<std::uint64_t> compared{0};
  expect_none(for_each_seed(0, case_count(), [&](std::uint64_t seed) -> std::string {
    const Case c = make_case(random_small_spec(seed), seed);
    if (c.config.starts_at_attention()) return "";
    const Trace a = fused->run(c, all_stages());
    const Trace b = unfused->run(c, all_stages());
    for (const Stage stage : {Stage::kQNorm, Stage::kKNorm, Stage::kQRope, Stage::kKRope}) {
      if (!(a[stage] == b[stage])) return std::string(name_of(stage)) + " differs: " + c.repro;
    }
    if (!(a.cache == b.cache)) return "the cache differs: " + c.repro;
    ++compared;
    return "";
  }));
  EXPECT_GT(compared.load(), case_count() / 4);
}

TEST_F(GpuLayer, RepeatsToTheBit) {
  const auto backend = make_backend("cuda");
  expect_none(for_each_seed(0, std::min<std::uint64_t>(case_count(), 500), [&](std::uint64_t seed) {
    const Case c = make_case(random_small_spec(seed), seed);
    const Trace a = backend->run(c, all_stages());
    const Trace b = backend->run(c, all_stages());
    for (const Stage stage : all_stages()) {
      // Bytes, because NaN is not equal to itself.
      const auto x = a[stage].bytes();
      const auto y = b[stage].bytes();
      if (!std::ranges::equal(x, y)) return std::string(name_of(stage)) + " differs: " + c.repro;
    }
    return std::string();
  }));
}

std::string why_wrong(const Case& c, const Trace& trace, bool taps) {
  CompareOptions options;
  options.taps = taps;
  options.check_trust = false;
  const Verdict verdict = compare(c, trace, make_backend("cuda")->arithmetic(c.config), options);
  return verdict.status == Status::kPassed ? "" : verdict.detail + ": " + c.repro;
}

TEST_F(GpuLayer, ReplaysAGraphWithOtherLengthsPagesAndData) {
  for (const char* entry : {"forward", "attention"}) {
    const bool attention = std::string_view(entry) == "attention";
    const auto make = [&](const char* rows, std::uint64_t seed) {
      const std::string spec = std::string(R"({"config":{"variant":")") +
                               (attention ? "attention" : "attention_with_rope") +
                               R"(","entry_point":")" + entry +
                               R"(","num_attention_heads":8,"num_key_value_heads":2,)" +
                               (attention ? "" : R"("hidden_size":128,)") +
                               R"("head_dim":64,"dtype":"bfloat16","mask":{"variant":"causal"},)"
                               R"("kv_cache":{"page_size":512,"dtype":"bfloat16"}},"rows":)" +
                               rows + "}";
      return make_case(parse_case_spec(spec), seed);
    };
    // As many tokens, pages and positions, so that every tensor has the same place and size.
    // For attention: queries and keys; for the layer: cached and new tokens.
    const Case planned = make(attention ? "[[2,500],[1,400]]" : "[[400,2],[300,1]]", 1);
    Case other = make(attention ? "[[1,17],[2,431]]" : "[[17,1],[400,2]]", 2);
    other.weights = planned.weights;
    const auto runs = prepare_runs(planned, {}, 1);
    runs->milliseconds(1, true);
    EXPECT_EQ(why_wrong(planned, runs->output(0), false), "");
    EXPECT_EQ(why_wrong(other, runs->replay(other), false), "");
    EXPECT_EQ(why_wrong(planned, runs->replay(planned), false), "");
  }
}

TEST_F(GpuLayer, TakesCachesInAnyOrderAndBeyond32Bits) {
  const auto backend = make_backend("cuda");
  expect_none(for_each_seed(0, std::min<std::uint64_t>(case_count(), 500), [&](std::uint64_t seed) {
    Case c = make_case(random_small_spec(seed), seed);
    if (seed % 3 != 0) c.layout.cache = CacheOrder::kHnd;
    // Past 2^31 elements, and past 2^32 bytes of the smallest type.
    if (seed % 3 != 1) c.layout.pool_offset = std::int64_t{5} << 30;
    return why_wrong(c, backend->run(c, all_stages()), true);
  }));
}

}  // namespace
}  // namespace attn::harness
