#include "tests/gpu/device_cases.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdio>

#include "harness/compare/compare.h"
#include "harness/fuzz/case_source.h"
#include "harness/fuzz/fit.h"
#include "tests/gpu/seeds.h"

namespace attn::harness {

std::uint64_t device_case_count() { return environment_number("ATTN_GPU_CASES", 200); }

void expect_none(const std::vector<std::string>& complaints) {
  EXPECT_EQ(complaints.size(), 0U);
  for (std::size_t i = 0; i < std::min<std::size_t>(complaints.size(), 10); ++i) {
    ADD_FAILURE() << complaints[i];
  }
}

std::string why_wrong(const Case& c, const Trace& trace, const Backend& backend) {
  CompareOptions options;
  options.check_trust = false;
  const Verdict verdict = compare(c, trace, backend.arithmetic(c.config), options);
  return verdict.status == Status::kPassed ? "" : verdict.detail + ": " + c.repro;
}

ExecMode mode_in_turn(std::uint64_t n) {
  constexpr std::array kModes{ExecMode::kPlain,       ExecMode::kRepeat, ExecMode::kGraph,
                              ExecMode::kGraphReplay, ExecMode::kPadded, ExecMode::kSecondCall,
                              ExecMode::kDirtyScratch};
  return kModes.at(n % kModes.size());
}

std::string run_case(const Backend& backend, const CaseSpec& spec, std::uint64_t seed,
                     ExecMode mode) {
  Case c = make_case(spec, seed);
  if (seed % 3 == 1) c.layout.cache = CacheOrder::kHnd;
  if (seed % 5 == 1) c.layout.pool_offset = std::int64_t{5} << 30;
  const OtherCase made = other_case(spec, seed);
  Case other = make_case(made.spec, made.seed);
  other.layout = c.layout;
  const Trace trace = execute(backend, mode, c, &other, all_stages());
  const std::string wrong = why_wrong(c, trace, backend);
  return wrong.empty() ? "" : std::string(name_of(mode)) + ": " + wrong;
}

std::uint64_t run_covering_set(const Backend& backend, std::uint64_t most,
                               const std::function<bool(const AttentionConfig&)>& takes,
                               bool layers_only) {
  const std::vector<PlannedCase> cases = covering_cases({Gate::kSmoke, 1, {}});
  std::atomic<std::uint64_t> judged{0};
  expect_none(for_each_seed(
      0, std::min<std::uint64_t>(cases.size(), most), [&](std::uint64_t n) -> std::string {
        if (layers_only && cases.at(n).spec.config.starts_at_attention()) return "";
        const auto spec = fitted(cases.at(n).spec, takes);
        if (!spec) return "";
        ++judged;
        // All shared memory of all multiprocessors, written under a tool that follows each access.
        const ExecMode mode = mode_in_turn(n);
        return run_case(backend, *spec, cases.at(n).seed,
                        mode == ExecMode::kDirtyScratch ? ExecMode::kPlain : mode);
      }));
  return judged.load();
}

void expect_alike(const Backend& a, const Backend& b,
                  const std::function<CaseSpec(std::uint64_t)>& spec_of) {
  std::atomic<std::uint64_t> equal{0}, all{0};
  const auto judge = [&](std::uint64_t seed) -> std::string {
    const Case c = make_case(spec_of(seed), seed);
    const Trace first = a.run(c, all_stages());
    const Trace second = b.run(c, all_stages());
    const Tensor& x = first[Stage::kKRope];
    const Tensor& y = second[Stage::kKRope];
    const auto count = x.bytes().size() / 2;
    for (std::size_t i = 0; i < count; ++i) {
      equal += x.as<std::uint16_t>()[i] == y.as<std::uint16_t>()[i] ? 1 : 0;
    }
    all += count;
    const std::string wrong = why_wrong(c, first, a);
    return wrong.empty() ? why_wrong(c, second, b) : wrong;
  };
  expect_none(for_each_seed(7000, std::min<std::uint64_t>(device_case_count(), 100), judge));
  const double share = static_cast<double>(equal.load()) / static_cast<double>(all.load());
  std::printf("%llu keys' values: %.4f equal to those of %s\n",
              static_cast<unsigned long long>(all.load()), share, b.name().c_str());
  EXPECT_GT(share, 0.9);
}

}  // namespace attn::harness
