// The CUDA layers against the exact reference on random cases, and against themselves.
#include <algorithm>
#include <array>
#include <atomic>
#include <map>
#include <mutex>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#if ATTN_WITH_CUDA
#include "gpu/device/device.h"
#endif
#include "harness/backends/execution.h"
#include "harness/compare/compare.h"
#include "harness/fuzz/case_source.h"
#include "harness/generate/case_spec.h"
#include "reference/core/error.h"
#include "tests/gpu/device_cases.h"
#include "tests/gpu/device_fixture.h"
#include "tests/gpu/seeds.h"

namespace attn::harness {
namespace {

using GpuLayer = OnDevice;

TEST_F(GpuLayer, PassesRandomCases) {
  for (const char* spec : {"cuda", "cuda:splits=3", "cuda:attention=plain,gemv=0,gemm=own"}) {
    SCOPED_TRACE(spec);
    const auto backend = make_backend(spec);
    std::mutex mutex;
    std::map<Stage, double> largest;
    std::atomic<std::uint64_t> mistrusted{0};
    expect_none(for_each_seed(0, device_case_count(), [&](std::uint64_t seed) -> std::string {
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

// What scripts/gpu-check.sh gives to compute-sanitizer: every pair of features that a hundred cases
// can hold, in the modes of a device, and some of them on the slower kernels.
TEST_F(GpuLayer, PassesASmallCoveringSet) {
  const std::vector<PlannedCase> cases = covering_cases({Gate::kSmoke, 1, {}});
  constexpr std::array kOthers{"cuda:fused=0",         "cuda:splits=3",
                               "cuda:prefill=tiled",   "cuda:fp8=cublaslt",
                               "cuda:coded=stream",    "cuda:coded=few",
                               "cuda:coded=cluster",   "cuda:attention=plain,gemv=0,gemm=own",
                               "cuda:decode=lean-mail"};
  constexpr std::size_t kSlower = 10;
  const std::size_t all = std::min<std::size_t>(cases.size(), 100) + kSlower;
  const auto fast = make_backend("cuda");
  expect_none(for_each_seed(0, all, [&](std::uint64_t n) -> std::string {
    const PlannedCase& planned = cases.at(n % (all - kSlower));
    const Case c = make_case(planned.spec, planned.seed);
    const bool slower = n >= all - kSlower;
    const auto other_way = slower ? make_backend(kOthers.at(n % kOthers.size())) : nullptr;
    const Backend& backend = slower ? *other_way : *fast;
    if (!backend.unsupported_reason(c.config).empty()) return "";
    ExecMode mode = slower ? ExecMode::kPlain : dealt_mode(n);
    // All shared memory of all multiprocessors, written under a tool that follows each access.
    if (mode == ExecMode::kDirtyScratch) mode = ExecMode::kPlain;
    const OtherCase made = other_case(planned.spec, planned.seed);
    const Case other = make_case(made.spec, made.seed);
    const Trace trace = execute(backend, mode, c, &other, all_stages());
    CompareOptions options;
    options.check_trust = false;
    const Verdict verdict = compare(c, trace, backend.arithmetic(c.config), options);
    if (verdict.status == Status::kPassed) return "";
    return std::string(name_of(mode)) + ": " + verdict.detail + ": " + c.repro;
  }));
}

/// Layers whose q, k and v are held within 0, by each product that holds them; few rows and many.
std::vector<CaseSpec> bounds_of_zero() {
  constexpr std::array kLayers{
      R"("dtype":"float32")", R"("dtype":"bfloat16","use_qk_norm":true)",
      R"("dtype":"bfloat16","quant":{"encoding":"float8_e4m3fn","activation":"token",)"
      R"("weight_granularity":"rowwise"})",
      R"("variant":"gptq","dtype":"float16","quant":{"encoding":"gptq","bits":4,"group_size":64})",
      R"("variant":"gguf","dtype":"float32","quant":{"encoding":"q4_0","activation":"int8"})"};
  std::vector<CaseSpec> specs;
  for (const char* const layer : kLayers) {
    specs.push_back(parse_case_spec(
        R"({"config":{"hidden_size":256,"num_attention_heads":4,"num_key_value_heads":2,)"
        R"("head_dim":64,"clip_activations":0.0,)" +
        std::string(layer) + R"(},"rows":[[3,5],[0,1]]})"));
    specs.push_back(specs.back());
    specs.back().rows = {{5, 300}};
  }
  return specs;
}

TEST_F(GpuLayer, ABoundOfZeroLeavesZeros) {
  const std::vector<CaseSpec> specs = bounds_of_zero();
  for (const char* const name :
       {"cuda", "cuda:attention=plain,gemv=0,gemm=own", "cuda:fp8=cublaslt"}) {
    const auto backend = make_backend(name);
    expect_none(for_each_seed(0, specs.size(), [&](std::uint64_t n) {
      return run_case(*backend, specs.at(n), n, ExecMode::kPlain);
    }));
  }
}

// Needs no device: the cases of the test before are so, and show a bound that is forgotten.
TEST(GpuLayerCases, OfABoundOfZeroAreRightOnTheCpuAndTellABoundFromNone) {
  const auto cpu = make_backend("cpu");
  for (const CaseSpec& spec : bounds_of_zero()) {
    EXPECT_EQ(run_case(*cpu, spec, 0, ExecMode::kPlain), "");
    CaseSpec without = spec;
    without.config.clip_activations.reset();
    const Case bounded = make_case(spec, 0);
    const Trace free = cpu->run(make_case(without, 0), all_stages());
    EXPECT_NE(why_wrong(bounded, free, *cpu), "") << to_json(spec);
  }
}

TEST_F(GpuLayer, FusedAndUnfusedHeadPassAgreeToTheBit) {
  const auto fused = make_backend("cuda");
  const auto unfused = make_backend("cuda:fused=0");
  std::atomic<std::uint64_t> compared{0};
  expect_none(for_each_seed(0, device_case_count(), [&](std::uint64_t seed) -> std::string {
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
  EXPECT_GT(compared.load(), device_case_count() / 4);
}

TEST_F(GpuLayer, RepeatsToTheBit) {
  const auto backend = make_backend("cuda");
  expect_none(
      for_each_seed(0, std::min<std::uint64_t>(device_case_count(), 500), [&](std::uint64_t seed) {
        const Case c = make_case(random_small_spec(seed), seed);
        const Trace a = backend->run(c, all_stages());
        const Trace b = backend->run(c, all_stages());
        for (const Stage stage : all_stages()) {
          // Bytes, because NaN is not equal to itself.
          const auto x = a[stage].bytes();
          const auto y = b[stage].bytes();
          if (!std::ranges::equal(x, y))
            return std::string(name_of(stage)) + " differs: " + c.repro;
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

// A graph is captured with the longer lengths of two cases, and right for either.
TEST_F(GpuLayer, ReplaysAGraphWithOtherLengthsPagesAndData) {
  const auto backend = make_backend("cuda");
  for (const char* entry : {"forward", "attention"}) {
    const bool attention = std::string_view(entry) == "attention";
    const auto make = [&](const char* rows, std::uint64_t seed) {
      const std::string spec = std::string(R"({"config":{"variant":")") +
                               (attention ? "attention" : "attention_with_rope") +
                               R"(","entry_point":")" + entry +
                               R"(","num_attention_heads":8,"num_key_value_heads":2,)" +
                               (attention ? "" : R"("hidden_size":128,)") +
                               R"("head_dim":64,"dtype":"bfloat16","mask":{"variant":"causal"},)"
                               R"("kv_cache":{"page_size":16,"dtype":"bfloat16"}},"rows":)" +
                               rows + "}";
      return make_case(parse_case_spec(spec), seed);
    };
    // For attention: queries and keys; for the layer: cached and new tokens.
    const Case a = make(attention ? "[[2,500],[1,400]]" : "[[400,2],[300,1]]", 1);
    Case b = make(attention ? "[[1,17],[3,431]]" : "[[17,1],[428,3]]", 2);
    b.weights = a.weights;
    const auto replay = [&](const Case& judged, const Case& captured) {
      const auto trace = backend->run_as(ExecMode::kGraphReplay, judged, &captured, all_stages());
      return why_wrong(judged, trace.value(), true);
    };
    EXPECT_EQ(replay(a, b), "");
    EXPECT_EQ(replay(b, a), "");
  }
}

// A capture refuses calls of the allocator and waits of this thread: what it takes does neither.
TEST_F(GpuLayer, RunNeitherAllocatesNorWaits) {
  for (const char* spec : {"cuda", "cuda:fused=0", "cuda:splits=3", "cuda:prefill=tiled",
                           "cuda:attention=plain,gemv=0,gemm=own"}) {
    SCOPED_TRACE(spec);
    const auto backend = make_backend(spec);
    expect_none(for_each_seed(5000, 50, [&](std::uint64_t seed) {
      const Case c = make_case(random_small_spec(seed), seed);
      const auto trace = backend->run_as(ExecMode::kGraph, c, nullptr, all_stages());
      return why_wrong(c, trace.value(), true);
    }));
  }
}

TEST_F(GpuLayer, SaysThatMemoryIsOut) {
#if ATTN_WITH_CUDA
  try {
    const gpu::Buffer buffer(std::size_t{1} << 46);
    FAIL() << "64 TiB were there";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("cuda: out of memory: 70368744177664 bytes wanted"),
              std::string::npos)
        << error.what();
  }
  // The next call is none the worse for it.
  const Case c = make_case(random_small_spec(1), 1);
  EXPECT_EQ(why_wrong(c, make_backend("cuda")->run(c, all_stages()), true), "");
#endif
}

TEST_F(GpuLayer, TakesCachesInAnyOrderAndBeyond32Bits) {
  const auto backend = make_backend("cuda");
  expect_none(
      for_each_seed(0, std::min<std::uint64_t>(device_case_count(), 500), [&](std::uint64_t seed) {
        Case c = make_case(random_small_spec(seed), seed);
        if (seed % 3 != 0) c.layout.cache = CacheOrder::kHnd;
        // Past 2^31 elements, and past 2^32 bytes of the smallest type.
        if (seed % 3 != 1) c.layout.pool_offset = std::int64_t{5} << 30;
        return why_wrong(c, backend->run(c, all_stages()), true);
      }));
}

/// An attention case: `cache` is the cache's type and scales, `rows` [queries, keys] of sequences.
Case attention_case(const std::string& type, const std::string& cache, int heads, int kv_heads,
                    int head_dim, int page, const std::string& rows, std::uint64_t seed) {
  std::ostringstream spec;
  spec << R"({"config":{"variant":"attention","entry_point":"attention","num_attention_heads":)"
       << heads << R"(,"num_key_value_heads":)" << kv_heads << R"(,"head_dim":)" << head_dim
       << R"(,"dtype":")" << type << R"(","mask":{"variant":"causal"},"kv_cache":{"page_size":)"
       << page << R"(,"dtype":)" << cache << R"(}},"rows":)" << rows << "}";
  return make_case(parse_case_spec(spec.str()), seed);
}

constexpr std::array kCaches{R"("bfloat16")", R"("float8_e4m3fn")",
                             R"("float8_e4m3fn","scale_granularity":"tensor")",
                             R"("float8_e4m3fn","scale_granularity":"head")",
                             R"("float8_e4m3fn","scale_granularity":"token_head")"};

/// More blocks of the decode kernel than run at once, of every length and every type of cache.
TEST_F(GpuLayer, DecodesManySequences) {
  const auto backend = make_backend("cuda");
  expect_none(for_each_seed(
      0, std::min<std::uint64_t>(device_case_count(), 2 * kCaches.size()), [&](std::uint64_t seed) {
        std::ostringstream rows;
        for (std::uint64_t b = 0; b < 150; ++b) {
          const std::uint64_t queries = b % 7 == 3 ? 0 : 1 + b % 2;
          const std::uint64_t keys = b % 11 == 0 ? queries : queries + (b * 37 + seed * 5) % 150;
          rows << (b == 0 ? "[[" : ",[") << queries << "," << keys << "]";
        }
        rows << "]";
        const int page = std::array{16, 64, 5}[seed % 3];
        const Case c = attention_case("bfloat16", kCaches[seed % kCaches.size()], 12, 3, 64, page,
                                      rows.str(), seed);
        return why_wrong(c, backend->run(c, all_stages()), true);
      }));
}

/// Rows that are split: over clusters, and through the workspace.
TEST_F(GpuLayer, SplitsLongRows) {
  const auto backend = make_backend("cuda");
  const std::array<std::string, 5> rows{"[[1,900]]", "[[1,2900],[2,1500]]", "[[1,7000]]",
                                        "[[2,3100],[0,0],[1,129]]", "[[1,16]]"};
  expect_none(
      for_each_seed(0, std::min<std::uint64_t>(device_case_count(), 60), [&](std::uint64_t seed) {
        const int head_dim = std::array{128, 64, 72, 256, 40, 96}[seed % 6];
        const int group = std::array{1, 4, 8, 5}[seed % 4];
        const int page = std::array{64, 16, 1, 48}[seed / 4 % 4];
        const Case c = attention_case(seed % 5 == 4 ? "float16" : "bfloat16",
                                      seed % 5 == 4 ? R"("float16")" : kCaches[seed / 2 % 5],
                                      2 * group, 2, head_dim, page, rows[seed % 5], seed);
        return why_wrong(c, backend->run(c, all_stages()), true);
      }));
}

/// The tiled kernel on caches of codes: whole pages and others, every granularity of scales.
TEST_F(GpuLayer, PrefillsFromCodes) {
  const auto backend = make_backend("cuda");
  expect_none(
      for_each_seed(0, std::min<std::uint64_t>(device_case_count(), 48), [&](std::uint64_t seed) {
        const int head_dim = std::array{128, 64, 72, 256, 24, 112}[seed % 6];
        const int page = std::array{64, 128, 7, 16}[seed / 6 % 4];
        const Case c =
            attention_case(seed % 3 == 0 ? "float16" : "bfloat16", kCaches[1 + seed % 4], 4, 2,
                           head_dim, page, "[[40,40],[150,333],[17,700],[0,0],[70,64]]", seed);
        return why_wrong(c, backend->run(c, all_stages()), true);
      }));
}

}  // namespace
}  // namespace attn::harness
