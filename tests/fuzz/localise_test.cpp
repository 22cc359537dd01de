#include "harness/fuzz/localise.h"

#include <gtest/gtest.h>

#include <array>

#include "tests/fuzz/planted.h"

namespace attn::harness {
namespace {

/// What constructed cases say of a planted bug whose inside nobody shows.
Localised found(const char* id) {
  const FaultInfo& fault = find_fault(id);
  const auto failure = find_failure(fault, 150, Taps::kNone);
  if (!failure) {
    ADD_FAILURE() << id << " was not shown";
    return {};
  }
  const ShrinkResult small = shrunk(fault, *failure, Taps::kNone);
  const std::array failing = {FailingCase{small.spec, small.seed},
                              FailingCase{failure->spec, failure->seed}};
  return localise(failing, final_probe(id));
}

struct Planted {
  const char* fault;
  Stage stage;
};
void PrintTo(const Planted& planted, std::ostream* out) { *out << planted.fault; }

class Localise : public testing::TestWithParam<Planted> {};

TEST_P(Localise, FindsTheStageFromFinalAnswers) {
  const Localised localised = found(GetParam().fault);
  EXPECT_EQ(localised.stage, GetParam().stage) << localised.because;
  EXPECT_TRUE(localised.sure) << localised.because;
  EXPECT_FALSE(localised.because.empty());
}

INSTANTIATE_TEST_SUITE_P(Planted, Localise,
                         testing::Values(Planted{"window_one_too_wide", Stage::kLse},
                                         Planted{"kv_head_modulo", Stage::kLse},
                                         Planted{"denominator_without_tail", Stage::kLse},
                                         Planted{"output_heads_innermost", Stage::kAttnOut},
                                         Planted{"output_sum_in_half", Stage::kAttnOut},
                                         Planted{"last_page_tail_read", Stage::kAttnOut},
                                         Planted{"page_table_ignored", Stage::kCacheK},
                                         Planted{"value_scale_dropped", Stage::kCacheV},
                                         Planted{"bias_of_q_only", Stage::kKProj},
                                         Planted{"norm_weight_of_q", Stage::kKNorm},
                                         Planted{"rope_turns_backward", Stage::kQRope},
                                         Planted{"tp_output_not_summed", Stage::kOut}),
                         [](const auto& test) { return std::string(test.param.fault); });

/// A right backend has no bad stage, and nothing that is said of one is sure.
TEST(Localise, OfARightBackendNothingIsSure) {
  const CaseSpec spec = parse_case_spec(
      R"({"config": {"variant": "attention_with_rope", "entry_point": "forward",
          "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "hidden_size": 8,
          "dtype": "float32", "kv_cache": {"page_size": 4}}, "rows": [[9, 2], [7, 1]]})");
  EXPECT_FALSE(localise(std::array{FailingCase{spec, 3}}, final_probe("none")).sure);
}

}  // namespace
}  // namespace attn::harness
