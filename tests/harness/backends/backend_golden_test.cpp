#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "golden/golden_file.h"
#include "harness/backends/backend.h"
#include "reference/core/element.h"

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

/// A coarse net under the comparison's derived bounds, which are judged elsewhere: what a backend
/// rounds to with unit roundoff u moves an element by u of itself, sums of n such terms by about
/// sqrt(n) u of the largest, and a softmax by the error of its logits. The files' sums have at most
/// 300 terms and logits below 20; 350 u covers both with room.
double allowance(const Arithmetic& arithmetic, Stage stage, const std::vector<double>& want) {
  const double before_cache = 350.0 * unit_roundoff(ElementType::kFloat32);
  if (stage < Stage::kCacheK) return before_cache * largest(want);
  const double roundoff = unit_roundoff(arithmetic.cache);
  const double u = std::max(before_cache, stage <= Stage::kCacheV ? roundoff : 4.0 * roundoff);
  return u * largest(want);
}

TEST(CpuGolden, EveryStageOfEveryFileIsReproduced) {
  int compared = 0;
  for (const auto& path : golden_files()) {
    SCOPED_TRACE(path.filename().string());
    const golden::GoldenFile file = golden::read(path.string());
    PagingOptions paging;
    paging.num_layers = 3;
    paging.layer = 2;
    const Case c = golden::to_case(file, paging);
    const Trace expected = golden::expected(file, c);
    for (const char* spec : {"cpu", "cpu:block=5,threads=3"}) {
      const std::unique_ptr<Backend> backend = make_backend(spec);
      ASSERT_EQ(backend->unsupported_reason(c.config), "");
      const Trace got = backend->run(c, all_stages());
      for (const Stage stage : all_stages()) {
        if (!expected.has(stage)) continue;
        ASSERT_TRUE(got.has(stage)) << name_of(stage);
        ASSERT_EQ(got[stage].shape(), expected[stage].shape()) << name_of(stage);
        const std::vector<double> want = expected[stage].values();
        const std::vector<double> have = got[stage].values();
        const double allowed = allowance(backend->arithmetic(c.config), stage, want);
        for (std::size_t i = 0; i < want.size(); ++i) {
          if (std::isinf(want[i])) {
            ASSERT_EQ(have[i], want[i]) << name_of(stage) << " " << i;
          } else {
            ASSERT_LE(std::abs(have[i] - want[i]), allowed)
                << spec << " " << name_of(stage) << " " << i << ": " << have[i] << ", want "
                << want[i];
          }
        }
        ++compared;
      }
    }
  }
  EXPECT_GE(compared, 2 * 49 * 2) << "every file has at least two stages";
}

/// The table that cpu makes from config.rope against the one in the file: both round angles
/// somewhere; float32 angles are off by 2^-23 of themselves, the entries by half that of the
/// attention factor.
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
      // cos^2 + sin^2 is the squared attention factor; the first row of a pair that hardly turns,
      // its inverse frequency at most 1.
      const double factor = std::hypot(c.freqs_cis.value(i), c.freqs_cis.value(i + 1));
      const double position = static_cast<double>(i / width);
      const double bound = 0x1p-23 * (1.0 + position) * factor;
      for (const std::int64_t j : {i, i + 1}) {
        ASSERT_NEAR(got[Stage::kFreqsCis].value(j), c.freqs_cis.value(j), bound) << j;
      }
    }
    ++tables;
  }
  EXPECT_GE(tables, 30);
}

}  // namespace
}  // namespace attn::harness
