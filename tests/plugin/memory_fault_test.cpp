// Planted bugs of memory, each in an attention kernel that is right in every layout without it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>

#include "harness/backends/backend.h"
#include "harness/backends/backend_failure.h"
#include "harness/backends/layout_taker.h"
#include "harness/backends/plugin_config.h"
#include "harness/backends/worker.h"
#include "harness/compare/compare.h"
#include "harness/faults/memory_faults.h"
#include "harness/generate/random_draw.h"
#include "harness/generate/random_layout.h"
#include "reference/core/error.h"

namespace attn::harness {
namespace {

constexpr int kRightCases = 150;
constexpr int kMostCases = 400;  // for each bug

/// Small random cases that start at attention, half of them with a length beside a multiple of 32,
/// in drawn layouts.

CaseSpec drawn_spec(std::uint64_t n) {
  std::uint64_t seed = n << 16U;
  CaseSpec spec = random_small_spec(seed);
  while (!spec.config.starts_at_attention()) spec = random_small_spec(++seed);
  Draw draw(n, "memory_fault_test");
  if (!spec.rows.empty() && draw.one_in(2)) {
    spec.rows.front().second = draw.pick<std::int64_t>({31, 32, 33, 64, 65});
  }
  spec.layout = random_layout(spec, n);
  return spec;
}

std::unique_ptr<Backend> backend_with(std::string_view fault) {
  Isolation isolation;
  isolation.timeout_seconds = 120;
  return make_isolated_backend(std::string(ATTN_FAULTY_MEMORY ":fault=").append(fault), isolation);
}

/// "" when the case passes or does not apply, else what the run says.
std::string failure_of(const Backend& backend, const Case& c) {
  try {
    const Trace trace = backend.run(c, stages_of(c.config));
    CompareOptions options;
    options.check_trust = false;
    const Verdict verdict = compare(c, trace, backend.arithmetic(c.config), options);
    if (verdict.status == Status::kPassed) return "";
    return "first bad stage " + std::string(name_of(*verdict.first_bad));
  } catch (const BackendFailure& failure) {
    return failure.what();
  }
}

TEST(MemoryFaults, TheKernelIsRightInEveryLayout) {
  const std::unique_ptr<Backend> backend = backend_with("none");
  for (int n = 0; n < kRightCases; ++n) {
    const CaseSpec spec = drawn_spec(static_cast<std::uint64_t>(n));
    EXPECT_EQ(failure_of(*backend, make_case(spec, 1)), "") << to_json(spec);
  }
}

MemoryLayout layout_with_everything() {
  MemoryLayout layout;
  layout.cache = CacheOrder::kHnd;
  layout.kv = KvPairing::kRowPairs;
  layout.q = QueryOrder::kFusedQkv;
  layout.out = OutputOrder::kTransposed;
  layout.broadcast = true;
  layout.gap = 3;
  layout.channel_stride = 2;
  layout.offset = 5;
  layout.row_stride = layout.pool_offset = std::int64_t{1} << 31;
  return layout;
}

/// What a gate's layout becomes for a backend: the plug-in says so from its own process.
TEST(Layouts, AreTakenAsFarAsABackendDeclares) {
  const MemoryLayout wanted = layout_with_everything();
  const AttentionConfig config = drawn_spec(0).config;
  EXPECT_EQ(taken_layout(*backend_with("none"), config, wanted), wanted);
  EXPECT_EQ(taken_layout(*make_backend("cpu"), config, wanted), MemoryLayout{}) << "of values";
}

TEST(Layouts, LoseTheFeaturesThatAreNotDeclared) {
  const MemoryLayout wanted = layout_with_everything();
  EXPECT_EQ(reduced_layout(wanted, 0), MemoryLayout{});
  EXPECT_EQ(reduced_layout(wanted, ATTN_LAYOUT_ANY), wanted);
  MemoryLayout some;
  some.cache = CacheOrder::kHnd;
  EXPECT_EQ(reduced_layout(wanted, ATTN_LAYOUT_HND), some);
  EXPECT_EQ(reduced_layout({}, ATTN_LAYOUT_ONLY_HND), some);
  some.gap = wanted.gap;
  some.offset = wanted.offset;
  some.row_stride = wanted.row_stride;
  some.pool_offset = wanted.pool_offset;
  const std::uint32_t declared = ATTN_LAYOUT_HND | ATTN_LAYOUT_GAPS | ATTN_LAYOUT_LARGE;
  EXPECT_EQ(reduced_layout(wanted, declared), some);
  EXPECT_EQ(taken_layout(some, declared), some) << "what is left is not refused";
  EXPECT_THROW(taken_layout(wanted, declared), Error);
}

class MemoryFault : public testing::TestWithParam<FaultInfo> {};

TEST_P(MemoryFault, IsCaught) {
  const FaultInfo& fault = GetParam();
  const std::unique_ptr<Backend> backend = backend_with(fault.id);
  for (int n = 0; n < kMostCases; ++n) {
    const CaseSpec spec = drawn_spec(static_cast<std::uint64_t>(n));
    const std::string failure = failure_of(*backend, make_case(spec, 1));
    if (failure.empty()) continue;
    std::printf("%-26s case %3d  %s\n", std::string(fault.id).c_str(), n + 1, failure.c_str());
    return;
  }
  FAIL() << fault.id << " survived; it needs: " << fault.trigger;
}

INSTANTIATE_TEST_SUITE_P(All, MemoryFault,
                         testing::ValuesIn(memory_faults().begin(), memory_faults().end()),
                         [](const auto& test) { return std::string(test.param.id); });

TEST(MemoryFaults, AnUnknownOneIsRefused) { EXPECT_THROW(backend_with("nothing"), Error); }

}  // namespace
}  // namespace attn::harness

int main(int argc, char** argv) {
  if (argc == 3 && std::string_view(argv[1]) == attn::harness::kWorkerVerb) {
    attn::harness::worker_main(std::strtoull(argv[2], nullptr, 10), attn::harness::make_backend);
  }
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
