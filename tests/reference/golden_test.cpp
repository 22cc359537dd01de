// Every golden file that the exact reference covers, stage by stage. The files come from a program
// that shares no code with the project.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

#include "golden/golden_file.h"
#include "reference/core/quant_internal.h"
#include "reference/reference.h"
#include "reference/stages/rope_scaling.h"
#include "reference/stages/weights.h"
#include "tests/reference/gguf_by_bits.h"

namespace attn::reference {
namespace {

std::vector<std::string> golden_files() {
  std::vector<std::string> paths;
  for (const auto& entry : std::filesystem::directory_iterator(ATTN_SOURCE_DIR "/data/golden")) {
    if (entry.path().extension() == ".h5") {
      paths.push_back(entry.path().string());
    }
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

PagingOptions awkward_paging() {
  PagingOptions paging;
  paging.seed = 3;
  paging.num_layers = 3;
  paging.layer = 1;
  return paging;
}

class GoldenFileTest : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    file_ = golden::read(GetParam());
    const std::string reason = unsupported_reason(file_.config());
    if (!reason.empty()) {
      GTEST_SKIP() << reason;
    }
    case_ = golden::to_case(file_, awkward_paging());
  }

  golden::GoldenFile file_;
  Case case_;
};

/// Equal, or both NaN, or within `tolerance`.
bool agrees(double got, double want, double tolerance) {
  return got == want || (std::isnan(got) && std::isnan(want)) || std::abs(got - want) <= tolerance;
}

double largest_finite(const Tensor& t) {
  double largest = 0.0;
  for (const double v : t.values()) {
    largest = std::isfinite(v) ? std::max(largest, std::abs(v)) : largest;
  }
  return largest;
}

void expect_stage(const Tensor& got, const Tensor& want, Stage stage) {
  ASSERT_EQ(got.shape(), want.shape()) << name_of(stage);
  // docs/golden-format.md: the exact mode is float64 on both sides, 1e-9 of the stage's largest
  // value.
  const double tolerance = 1e-9 * largest_finite(want);
  for (std::int64_t i = 0; i < want.size(); ++i) {
    ASSERT_TRUE(agrees(got.value(i), want.value(i), tolerance))
        << name_of(stage) << "[" << i << "]: got " << got.value(i) << ", want " << want.value(i);
  }
}

TEST_P(GoldenFileTest, ExactReproducesEveryExpectedStage) {
  const Trace want = golden::expected(file_, case_);
  const Trace got = evaluate(case_, Mode::kExact);
  int compared = 0;
  for (const Stage stage : all_stages()) {
    if (want.has(stage)) {
      ASSERT_TRUE(got.has(stage)) << name_of(stage);
      expect_stage(got[stage], want[stage], stage);
      ++compared;
    }
  }
  EXPECT_GE(compared, 2);
}

TEST_P(GoldenFileTest, TraceHasTheStagesOfTheConfigAndNoOthers) {
  for (const Mode mode : {Mode::kExact, Mode::kFaithful}) {
    const Trace got = evaluate(case_, mode);
    const std::vector<Stage> stages = stages_of(case_.config);
    for (const Stage stage : all_stages()) {
      const bool wanted = std::find(stages.begin(), stages.end(), stage) != stages.end();
      ASSERT_EQ(got.has(stage), wanted) << name_of(stage);
      if (wanted) {
        EXPECT_EQ(got[stage].type(), ElementType::kFloat64);
        EXPECT_EQ(got[stage].shape(), stage_shape(case_, stage)) << name_of(stage);
      }
    }
    EXPECT_TRUE(got.cache.has_value());
  }
}

TEST_P(GoldenFileTest, TableFromTheConfigIsTheStoredOne) {
  if (case_.freqs_cis.empty()) {
    return;  // entry point attention has none
  }
  const RopeFrequencies f = rope_frequencies(case_.config, Rounding(Mode::kExact));
  for (const Mode mode : {Mode::kExact, Mode::kFaithful}) {
    const Trace got = evaluate(case_, mode);
    const std::int64_t width = case_.config.rotary_dim();
    for (std::int64_t i = 0; i < case_.freqs_cis.size(); ++i) {
      const std::int64_t p = i / width;
      const double inv_freq = f.inv_freq(p)[static_cast<std::size_t>(i % width / 2)];
      // One float32 rounding of the entry and one of the angle p * inv_freq, which moves cos and
      // sin by at most as much; 2^-23 is one ulp.
      const double bound = 0x1p-23 * (1.0 + static_cast<double>(p) * inv_freq) * f.attention_factor;
      ASSERT_NEAR(got[Stage::kFreqsCis].value(i), case_.freqs_cis.value(i), bound)
          << "position " << p << ", column " << i % width;
    }
  }
}

TEST_P(GoldenFileTest, FaithfulStagesAreValuesOfTheType) {
  const Trace faithful = evaluate(case_, Mode::kFaithful);
  const Trace exact = evaluate(case_, Mode::kExact);
  for (const Stage stage :
       {Stage::kQProj, Stage::kKProj, Stage::kVProj, Stage::kQNorm, Stage::kKNorm, Stage::kQRope,
        Stage::kKRope, Stage::kCacheK, Stage::kCacheV, Stage::kAttnOut, Stage::kOut}) {
    if (!faithful.has(stage)) {
      continue;
    }
    const bool is_cache = stage == Stage::kCacheK || stage == Stage::kCacheV;
    // What code * scale of a cache with scales is rounded to.
    const bool scaled = case_.config.kv_cache.scale_granularity != ScaleGranularity::kNone;
    const ElementType type = is_cache && scaled ? ElementType::kFloat32 : case_.config.dtype;
    std::int64_t differ = 0;
    for (std::int64_t i = 0; i < faithful[stage].size(); ++i) {
      const double v = faithful[stage].value(i);
      ASSERT_EQ(v, round_to(type, v)) << name_of(stage) << "[" << i << "]";
      differ += v != exact[stage].value(i) ? 1 : 0;
    }
    const std::int64_t new_elements = is_cache ? case_.tokens() : faithful[stage].size();
    if (new_elements > 0 && largest_finite(exact[stage]) > 0.0) {
      EXPECT_GT(differ, 0) << name_of(stage) << " is the exact one under another name";
    }
  }
}

TEST_P(GoldenFileTest, GgufWeightsAreDecodedBitForBit) {
  for (const Projection p : {Projection::kQ, Projection::kK, Projection::kV, Projection::kO}) {
    const QuantEncoding encoding = encoding_of(case_.config, p);
    if (!is_gguf(encoding)) {
      return;
    }
    const attn::GgufBlock size = gguf_block(encoding);
    const Tensor& stored = projection_tensor(case_, p, "weight");
    const Matrix w = projection_weight(case_, p, Rounding(Mode::kExact));
    const std::int64_t blocks = w.cols() / size.elements;
    constexpr std::int64_t kRows = 24;  // enough of them: the slow way takes its time
    for (std::int64_t i = 0; i < kRows * w.cols(); ++i) {
      const std::int64_t n = i / w.cols();
      const std::int64_t block = i % w.cols() / size.elements;
      const auto bytes =
          stored.bytes().subspan(static_cast<std::size_t>((n * blocks + block) * size.bytes),
                                 static_cast<std::size_t>(size.bytes));
      const float want =
          test::gguf_weight_by_bits(encoding, bytes, static_cast<std::size_t>(i % size.elements));
      ASSERT_EQ(w(n, i % w.cols()), static_cast<double>(want)) << name_of(p) << "[" << i << "]";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Files, GoldenFileTest, testing::ValuesIn(golden_files()),
                         [](const auto& param_info) {
                           std::string name =
                               std::filesystem::path(param_info.param).stem().string();
                           std::replace_if(
                               name.begin(), name.end(),
                               [](char ch) { return std::isalnum(ch) == 0; }, '_');
                           return name;
                         });

}  // namespace
}  // namespace attn::reference
