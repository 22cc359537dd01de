#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "golden/golden_file.h"
#include "harness/backends/backend.h"
#include "harness/compare/compare.h"
#include "reference/core/element.h"
#include "tests/harness/backends/test_cases.h"

namespace attn::harness {
namespace {

std::vector<std::filesystem::path> golden_files() {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(
           std::filesystem::path(ATTN_SOURCE_DIR) / "data/golden")) {
    if (entry.path().extension() == ".h5") files.push_back(entry.path());
  }
  std::ranges::sort(files);
  return files;
}

double largest(const std::vector<double>& values) {
  double top = 0.0;
  for (const double v : values) {
    if (std::isfinite(v)) top = std::max(top, std::abs(v));
  }
  return top;
}

/// The tap mode judges each stage on the backend's own previous one, under what the backend
/// declares.
TEST(BackendGolden, EveryBackendKeepsItsDeclaredBoundsOnEveryFile) {
  for (const auto& path : golden_files()) {
    PagingOptions paging;
    paging.num_layers = 3;
    paging.layer = 2;
    const golden::GoldenFile file = golden::read(path.string());
    const Case c = golden::to_case(file, paging);
    const Trace expected = golden::expected(file, c);
    for (const char* spec :
         {"exact", "faithful", "cpu", "cpu:block=1,threads=3", "cpu:block=1000,threads=2"}) {
      SCOPED_TRACE(path.filename().string() + " " + spec);
      const std::unique_ptr<Backend> backend = make_backend(spec);
      ASSERT_EQ(backend->unsupported_reason(c.config), "");
      const Trace got = backend->run(c, all_stages());
      for (const Stage stage : all_stages()) {
        EXPECT_TRUE(got.has(stage) || !expected.has(stage)) << name_of(stage);
      }
      const Verdict verdict = compare(c, got, backend->arithmetic(c.config));
      EXPECT_EQ(verdict.status, Status::kPassed) << verdict.detail;
      EXPECT_LE(verdict.worst_ratio(), 1.0);
    }
  }
}

/// The table that cpu makes from config.rope against the one in the file, whose angles may have
/// been rounded to float32: each angle p * inv, with inv at most 1, is then off by 2^-23 of itself.
TEST(CpuGolden, TheRopeTableAgreesWithTheFiles) {
  int tables = 0;
  for (const auto& path : golden_files()) {
    SCOPED_TRACE(path.filename().string());
    const Case c = golden::to_case(golden::read(path.string()), {});
    if (c.config.starts_at_attention()) continue;
    const Trace got = make_backend("cpu")->run(c, std::vector{Stage::kFreqsCis});
    ASSERT_EQ(got[Stage::kFreqsCis].shape(), c.freqs_cis.shape());
    const std::int64_t width = c.freqs_cis.dim(1);
    for (std::int64_t i = 0; i < c.freqs_cis.size(); i += 2) {
      const double factor = std::hypot(c.freqs_cis.value(i), c.freqs_cis.value(i + 1));
      const std::int64_t position = i / width;
      const double bound = 0x1p-23 * (1.0 + static_cast<double>(position)) * factor;
      for (const std::int64_t j : {i, i + 1}) {
        ASSERT_NEAR(got[Stage::kFreqsCis].value(j), c.freqs_cis.value(j), bound) << j;
      }
    }
    ++tables;
  }
  EXPECT_GE(tables, 30);
}

std::vector<RopeConfig> many_ropes(std::int64_t rotary_dim) {
  std::vector<RopeConfig> ropes;
  for (const double theta : {10000.0, 1e6, 500.7}) {
    const auto add = [&](RopeScaling scaling) {
      RopeConfig rope;
      rope.theta = theta;
      rope.scaling = std::move(scaling);
      ropes.push_back(rope);
    };
    RopeScaling s;
    add(s);
    s.type = RopeScalingType::kDynamic;
    add(s);
    s.original_max_position_embeddings = 64;
    for (const double factor : {0.5, 1.0, 4.0, 40.0}) {
      s.factor = factor;
      s.type = RopeScalingType::kLinear;
      add(s);
      s.type = RopeScalingType::kLlama3;
      s.low_freq_factor = 1.0;
      add(s);
      s.low_freq_factor = s.high_freq_factor;  // no wavelengths between
      add(s);
      for (const double beta_slow :
           {0.05, 1.0, 32.0}) {  // a corner beyond the last pair; none at all
        s.beta_slow = beta_slow;
        s.type = RopeScalingType::kYarn;
        add(s);
        s.type = RopeScalingType::kDeepseekYarn;
        s.mscale = 0.707;
        s.mscale_all_dim = 1.3;
        add(s);
      }
    }
    s.type = RopeScalingType::kLongrope;
    for (std::int64_t j = 0; j < rotary_dim / 2; ++j) {
      s.short_factor.push_back(1.0 + 0.1 * static_cast<double>(j));
      s.long_factor.push_back(2.0 + static_cast<double>(j));
    }
    for (const std::int64_t max_position : {32, 64, 512}) {
      s.max_position_embeddings = max_position;
      s.convention = LongropeConvention::kMax;
      add(s);
      s.convention = LongropeConvention::kTransformers;
      for (const bool use_long : {false, true}) {
        s.use_long = use_long;
        add(s);
      }
    }
  }
  return ropes;
}

/// Two implementations that share no code, both in float64 and rounded once: equal but for one
/// float32 step, and for the angle's own rounding (some 2^-50 of it) where cos or sin is near 0.
TEST(CpuRopeTable, AgreesWithTheReferenceForEveryScaling) {
  constexpr std::int64_t kPositions = 300;
  for (const std::int64_t rotary_dim : {8, 24}) {
    for (const RopeConfig& rope : many_ropes(rotary_dim)) {
      AttentionConfig config = layer_config(1, 1, rotary_dim, 8);
      config.rope = rope;
      Case c = random_case(config, {{0, 1}}, 1);
      c.freqs_cis = Tensor(ElementType::kFloat32, {kPositions, rotary_dim});
      const Tensor got =
          make_backend("cpu")->run(c, std::vector{Stage::kFreqsCis})[Stage::kFreqsCis];
      const Tensor want = make_backend("exact")->run(c, all_stages())[Stage::kFreqsCis];
      for (std::int64_t i = 0; i < got.size(); ++i) {
        const std::int64_t position = i / rotary_dim;
        const double bound =
            0x1p-23 * std::abs(want.value(i)) + 0x1p-50 * static_cast<double>(position);
        ASSERT_NEAR(got.value(i), want.value(i), bound) << to_json(config) << " element " << i;
      }
    }
  }
}

/// The reference through its adapter: every stage of the file, to 1e-9 of the stage's largest.
TEST(ReferenceBackends, ExactReproducesTheFilesAndFaithfulOffersTheSameStages) {
  for (const auto& path : golden_files()) {
    SCOPED_TRACE(path.filename().string());
    const golden::GoldenFile file = golden::read(path.string());
    const Case c = golden::to_case(file, {});
    const Trace expected = golden::expected(file, c);
    const Trace exact = make_backend("exact")->run(c, all_stages());
    const Trace faithful = make_backend("faithful")->run(c, all_stages());
    for (const Stage stage : all_stages()) {
      EXPECT_EQ(exact.has(stage), faithful.has(stage)) << name_of(stage);
      if (!expected.has(stage)) continue;
      ASSERT_TRUE(exact.has(stage)) << name_of(stage);
      const std::vector<double> want = expected[stage].values();
      const std::vector<double> have = exact[stage].values();
      for (std::size_t i = 0; i < want.size(); ++i) {
        if (want[i] == have[i]) continue;
        ASSERT_LE(std::abs(have[i] - want[i]), 1e-9 * largest(want)) << name_of(stage) << " " << i;
      }
    }
  }
}

}  // namespace
}  // namespace attn::harness
