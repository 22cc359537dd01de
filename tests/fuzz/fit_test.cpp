#include "harness/fuzz/fit.h"

#include <gtest/gtest.h>

#include "harness/generate/space.h"

namespace attn::harness {
namespace {

/// A kernel of one type, head size and mask that takes soft-caps and any cache.
bool narrow(const AttentionConfig& config) {
  return config.dtype == ElementType::kBFloat16 && config.head_dim == 128 &&
         config.mask.variant == MaskVariant::kCausal && !config.quant && !config.use_qk_norm;
}

TEST(Fit, TakesAwayWhatIsNotSupportedAndNothingElse) {
  std::int64_t found = 0, kept = 0;
  for (std::int64_t n = 0; n < 100; ++n) {
    const CaseSpec spec = random_case({}, n).spec;
    const auto fit = fitted(spec, narrow);
    if (!fit) continue;
    ++found;
    EXPECT_NO_THROW(validate(*fit));
    EXPECT_TRUE(narrow(fit->config)) << to_json(*fit);
    EXPECT_EQ(fit->rows, spec.rows);
    EXPECT_EQ(fit->sinks, spec.sinks);
    EXPECT_EQ(fit->config.logit_softcap, spec.config.logit_softcap);
    EXPECT_EQ(fit->config.num_key_value_heads, spec.config.num_key_value_heads);
    kept += spec.config.logit_softcap.has_value();
  }
  EXPECT_GT(found, 60);
  EXPECT_GT(kept, 3);
}

TEST(Fit, ASupportedSpecStaysAsItIs) {
  for (std::int64_t n = 0; n < 50; ++n) {
    const CaseSpec spec = random_case({}, n).spec;
    EXPECT_EQ(fitted(spec, [](const AttentionConfig&) { return true; }), spec) << to_json(spec);
  }
}

TEST(Fit, ThereMayBeNone) {
  EXPECT_FALSE(fitted(random_case({}, 1).spec, [](const AttentionConfig&) { return false; }));
}

}  // namespace
}  // namespace attn::harness
