// Relations that hold for whole layers with any quantised weights and activations.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "reference/core/error.h"
#include "reference/core/rules.h"
#include "reference/reference.h"
#include "reference/stages/product.h"
#include "reference/stages/projection.h"
#include "reference/stages/projection_input.h"
#include "tests/reference/make_case.h"

namespace attn::reference {
namespace {

using test::make_case;
using test::small_config;

/// 4 query heads on 2 kv heads of 64 channels, hidden 256: whole blocks of every encoding.
AttentionConfig wide_config(ElementType dtype) {
  AttentionConfig config = small_config();
  config.hidden_size = 256;
  config.head_dim = config.head_dim_v = 64;
  config.dtype = config.kv_cache.dtype = dtype;
  config.quant = QuantConfig{};
  return config;
}

AttentionConfig with_encoding(ElementType dtype, QuantEncoding encoding,
                              ActivationQuant activation) {
  AttentionConfig config = wide_config(dtype);
  config.quant->q_proj = config.quant->k_proj = encoding;
  config.quant->v_proj = config.quant->o_proj = encoding;
  config.quant->activation = activation;
  return config;
}

struct Named {
  std::string name;
  AttentionConfig config;
};

/// Every encoding with every activation that goes with it, and every shape of scales.
std::vector<Named> all_configs() {
  using enum QuantEncoding;
  using Activation = ActivationQuant;
  const ElementType bf16 = ElementType::kBFloat16;
  std::vector<Named> all;
  const auto add = [&](std::string name, AttentionConfig config) {
    all.push_back({std::move(name), std::move(config)});
  };
  for (const Activation activation :
       {Activation::kNone, Activation::kStatic, Activation::kToken, Activation::kBlock}) {
    for (const WeightGranularity granularity :
         {WeightGranularity::kTensor, WeightGranularity::kRowwise, WeightGranularity::kBlock}) {
      AttentionConfig config = with_encoding(bf16, kFloat8E4M3FN, activation);
      config.quant->weight_granularity = granularity;
      if (activation != Activation::kStatic || granularity == WeightGranularity::kTensor) {
        add("fp8_" + std::string(name_of(activation)) + "_" + std::string(name_of(granularity)),
            config);
      }
    }
  }
  for (const QuantEncoding encoding : {kNvfp4, kMxfp4, kMxfp8}) {
    for (const Activation activation : {Activation::kNone, Activation::kBlock}) {
      add(std::string(name_of(encoding)) + "_" + std::string(name_of(activation)),
          with_encoding(bf16, encoding, activation));
    }
  }
  for (const QuantEncoding encoding : {kQ4_0, kQ8_0, kQ4_K, kQ5_K, kQ6_K}) {
    for (const Activation activation : {Activation::kNone, Activation::kInt8}) {
      AttentionConfig config = with_encoding(ElementType::kFloat32, encoding, activation);
      config.variant = Variant::kGguf;
      add(std::string(name_of(encoding)) + "_" + std::string(name_of(activation)), config);
      config.quant->v_proj = kQ4_0;
      config.quant->o_proj = kQ6_K;
      add(std::string(name_of(encoding)) + "_mixed_" + std::string(name_of(activation)), config);
    }
  }
  for (const std::int64_t bits : {4, 8}) {
    for (const std::int64_t group : {32, 64, 128, -1}) {
      for (const bool v2 : {false, true}) {
        AttentionConfig config = with_encoding(bf16, kGptq, Activation::kNone);
        config.variant = Variant::kGptq;
        config.quant->bits = bits;
        config.quant->group_size = group;
        config.quant->desc_act = group == 64 || group == 128;
        config.quant->checkpoint_v2 = v2;
        add("gptq_" + std::to_string(bits) + "_" + std::to_string(group == -1 ? 0 : group) +
                (v2 ? "_v2" : "_v1"),
            config);
      }
    }
  }
  return all;
}

class QuantisedLayer : public testing::TestWithParam<Named> {};

TEST_P(QuantisedLayer, ForwardAndMaterializeLeaveTheSameBitsInTheCache) {
  AttentionConfig config = GetParam().config;
  config.use_qk_norm = true;
  config.has_bias = true;
  const Case c = make_case(config, {{1, 5, 3}, {2, 0, 2}});
  Case materialize_case = c;
  materialize_case.config.entry_point = EntryPoint::kMaterializeKvFromHidden;
  for (const Mode mode : {Mode::kExact, Mode::kFaithful}) {
    EXPECT_TRUE(*forward(c, mode).cache ==
                *materialize_kv_from_hidden(materialize_case, mode).cache);
  }
}

TEST_P(QuantisedLayer, MaterializeReadsOnlyWhatTheTableOfWeightsAsksFor) {
  AttentionConfig config = GetParam().config;
  Case c = make_case(config, {{1, 5, 3}});
  const Case whole = c;
  c.config.entry_point = EntryPoint::kMaterializeKvFromHidden;
  for (const TensorSpec& spec : expected_weights(c.config)) {
    if (spec.optional) {
      c.weights.erase(spec.name);
    }
  }
  EXPECT_EQ(c.weights.count("q_proj.weight"), 0U);
  validate(c);
  EXPECT_TRUE(*materialize_kv_from_hidden(c, Mode::kExact).cache ==
              *forward(whole, Mode::kExact).cache);
}

TEST_P(QuantisedLayer, ARowDoesNotDependOnItsNeighbours) {
  const Case c = make_case(GetParam().config, {{1, 0, 4}});
  const Matrix x = decode_matrix(c.x, c.tokens(), c.config.hidden_size);
  for (const Mode mode : {Mode::kExact, Mode::kFaithful}) {
    for (const Projection p : {Projection::kQ, Projection::kO}) {
      const Matrix together = multiply(c, p, x, Rounding(mode));
      for (std::int64_t t = 0; t < x.rows(); ++t) {
        const Matrix alone = multiply(c, p, x.row(t), Rounding(mode));
        const double largest = together.row(t).cwiseAbs().maxCoeff();
        // The same terms in another order, in double; float32 sums only where blocks are added up
        // one by one, in the same order.
        EXPECT_LE((alone - together.row(t)).cwiseAbs().maxCoeff(), test::kReordered * largest);
      }
    }
  }
}

/// |faithful - exact| of x W^T, element by element, if no code differs: rounded weights, scales,
/// products of scales, and the sums of the int8 path. Each is a float32 rounding (bfloat16 of GPTQ
/// weights and their scales) of a factor of every term, and there are at most four of them and one
/// per block of 32 columns.
double product_bound(const AttentionConfig& config, double terms) {
  const bool gptq = config.quant->q_proj == QuantEncoding::kGptq;
  const double roundings = 4.0 + static_cast<double>(config.hidden_size) / 32.0;
  return terms * (gptq ? 3 * unit_roundoff(ElementType::kBFloat16)
                       : roundings * unit_roundoff(ElementType::kFloat32));
}

TEST_P(QuantisedLayer, FaithfulProductsAreTheExactOnesButForRoundings) {
  const Case c = make_case(GetParam().config, {{1, 0, 6}});
  const Matrix x = decode_matrix(c.x, c.tokens(), c.config.hidden_size);
  const Rounding exact(Mode::kExact);
  const Rounding faithful(Mode::kFaithful);
  for (const Projection p : {Projection::kQ, Projection::kK, Projection::kV, Projection::kO}) {
    const ProjectionInput a = projection_input(c, p, x, exact);
    const ProjectionInput b = projection_input(c, p, x, faithful);
    const Matrix w = projection_weight(c, p, exact);
    // a w - b w' = (a - b) w + b (w - w'): codes next to a tie may be neighbours, of activations
    // and of requantised weights. |b| <= 2 |a|.
    const Matrix gaps = ((a.value() - b.value()).cwiseAbs() * w.cwiseAbs().transpose());
    const Matrix terms = a.value().cwiseAbs() * w.cwiseAbs().transpose();
    const Matrix weight_gaps =
        a.value().cwiseAbs() * (projection_weight(c, p, faithful) - w).cwiseAbs().transpose();
    const Matrix y = multiply(c, p, x, exact);
    const Matrix z = multiply(c, p, x, faithful);
    for (std::int64_t i = 0; i < y.size(); ++i) {
      const std::int64_t t = i / y.cols();
      const std::int64_t n = i % y.cols();
      ASSERT_LE(std::abs(y(t, n) - z(t, n)),
                product_bound(c.config, terms(t, n)) + gaps(t, n) + 2 * weight_gaps(t, n))
          << name_of(p) << " row " << t << " channel " << n;
    }
    ASSERT_GT(y.cwiseAbs().maxCoeff(), 0.0);
  }
}

INSTANTIATE_TEST_SUITE_P(All, QuantisedLayer, testing::ValuesIn(all_configs()),
                         [](const auto& param_info) { return param_info.param.name; });

TEST(GptqV2, ZeroPointsAreStoredAsTheyAre) {
  // Version 1 stores 2^(bits-1) - 1 = 7, version 2 8; in both a code c means (c - 8) * scale.
  for (const bool v2 : {false, true}) {
    AttentionConfig config =
        with_encoding(ElementType::kFloat16, QuantEncoding::kGptq, ActivationQuant::kNone);
    config.variant = Variant::kGptq;
    config.quant->checkpoint_v2 = v2;
    Case c = make_case(config, {{1, 0, 1}});
    EXPECT_EQ(c.weights.at("q_proj.qzeros").code(0), v2 ? 0x88888888U : 0x77777777U);
    // Columns 0 .. 7 of row 0: codes 0, 15, 8, 9, 7, 1, 2, 3.
    c.weights.at("q_proj.qweight").set_code(0, 0x321798f0);
    c.weights.at("q_proj.scales").set_value(0, 0.25);
    validate(c);
    const Matrix w = projection_weight(c, Projection::kQ, Rounding(Mode::kExact));
    const std::vector<double> want{-2.0, 1.75, 0.0, 0.25, -0.25, -1.75, -1.5, -1.25};
    for (std::int64_t k = 0; k < 8; ++k) {
      EXPECT_EQ(w(0, k), want[static_cast<std::size_t>(k)]) << k;
    }
    // The other version's zero points are refused.
    c.config.quant->checkpoint_v2 = !v2;
    EXPECT_THROW(validate(c), Error);
  }
}

}  // namespace
}  // namespace attn::reference
