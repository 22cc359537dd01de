// The merged tensors of q, k and v: every row of the table of scales, and that what they describe
// is what the products use.

#include "reference/layers/qkv_scales.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "reference/core/error.h"
#include "reference/stages/weights.h"

namespace attn::reference {
namespace {

constexpr ElementType kF32 = ElementType::kFloat32;
constexpr ElementType kE4M3 = ElementType::kFloat8E4M3FN;
constexpr ElementType kBytes = ElementType::kUInt8;

Tensor stored(ElementType type, Shape shape, const std::vector<double>& values) {
  return Tensor::from_values(type, std::move(shape), values);
}

/// Two query heads and one kv head of one channel: rows q 2, k 1, v 1. Hidden 2.
Case make_case(QuantEncoding encoding, ActivationQuant activation) {
  Case c;
  c.config.num_attention_heads = 2;
  c.config.num_key_value_heads = 1;
  c.config.head_dim = c.config.head_dim_v = 1;
  c.config.hidden_size = 2;
  if (encoding != QuantEncoding::kNone) {
    c.config.quant = QuantConfig{};
    c.config.quant->q_proj = c.config.quant->k_proj = encoding;
    c.config.quant->v_proj = c.config.quant->o_proj = encoding;
    c.config.quant->activation = activation;
  }
  return c;
}

/// Codes q (1.75, 2; -1.75, 448), k (1.75, 1), v (1, 0.5) and scales 25, 28, 1.
Case fp8_case(ActivationQuant activation) {
  Case c = make_case(QuantEncoding::kFloat8E4M3FN, activation);
  c.weights["q_proj.weight"] = stored(kE4M3, {2, 2}, {1.75, 2, -1.75, 448});
  c.weights["k_proj.weight"] = stored(kE4M3, {1, 2}, {1.75, 1});
  c.weights["v_proj.weight"] = stored(kE4M3, {1, 2}, {1, 0.5});
  const std::vector<std::pair<std::string, double>> scales{{"q", 25}, {"k", 28}, {"v", 1}};
  for (const auto& [name, scale] : scales) {
    c.weights[name + "_proj.weight_scale"] = Tensor::scalar(kF32, scale);
    c.weights[name + "_proj.input_scale"] = Tensor::scalar(kF32, scale / 10);
  }
  return c;
}

TEST(Wqkv, UnquantisedWeightsAreClippedAndStacked) {
  Case c = make_case(QuantEncoding::kNone, ActivationQuant::kNone);
  c.config.dtype = ElementType::kBFloat16;
  c.config.clip_qkv = 0.3;
  const ElementType type = ElementType::kBFloat16;
  c.weights["q_proj.weight"] = stored(type, {2, 2}, {1, 0.25, -1, 0});
  c.weights["k_proj.weight"] = stored(type, {1, 2}, {0.125, 5});
  c.weights["v_proj.weight"] = stored(type, {1, 2}, {-0.125, -5});
  const double bound = 0.30078125;  // 0.3 in bfloat16
  EXPECT_EQ(wqkv(c, QkvMerge::kForward, Mode::kFaithful),
            stored(type, {4, 2}, {bound, 0.25, -bound, 0, 0.125, bound, -0.125, -bound}));
  EXPECT_EQ(qkv_weight_scale(c, QkvMerge::kForward), std::nullopt);
  EXPECT_EQ(qkv_weight_scale_2(c), std::nullopt);
  EXPECT_EQ(qkv_input_scale(c), std::nullopt);

  c.config.stacked_qkv = true;
  c.weights["qkv_proj.weight"] = stored(type, {4, 2}, {1, 2, 3, 4, 5, 6, 7, 8});
  EXPECT_EQ(wqkv(c, QkvMerge::kForward, Mode::kFaithful), c.weights["qkv_proj.weight"]);
}

TEST(Wqkv, StaticFloat8IsRequantisedToTheLargestScale) {
  const Case c = fp8_case(ActivationQuant::kStatic);
  // q: 1.75 * 25 / 28 = 1.5625, a tie between 1.5 and 1.625 (float32 steps go up, see
  // activations_test); 2 * 25 / 28 = 1.786 to 1.75; 448 * 25 / 28 = 400, a tie between 384 and 416,
  // to 384 (even). k keeps its codes. v: 1 / 28 = 0.0357 = 9.14 / 256 to 9 / 256; half of it 9 /
  // 512.
  const Tensor exact = stored(kE4M3, {4, 2}, {1.5, 1.75, -1.5, 384, 1.75, 1, 9 / 256.0, 9 / 512.0});
  EXPECT_EQ(wqkv(c, QkvMerge::kForward, Mode::kExact), exact);
  const Tensor faithful = wqkv(c, QkvMerge::kForward, Mode::kFaithful);
  EXPECT_EQ(faithful.value(0), 1.625);
  EXPECT_EQ(faithful.value(2), -1.625);
  EXPECT_EQ(faithful.value(4), 1.75);
  EXPECT_EQ(*qkv_weight_scale(c, QkvMerge::kForward), Tensor::scalar(kF32, 28));
  EXPECT_EQ(*qkv_input_scale(c), static_cast<double>(2.8F));
}

TEST(Wqkv, ThePropertyOfStaticFloat8KeepsCodesAndScales) {
  const Case c = fp8_case(ActivationQuant::kStatic);
  EXPECT_EQ(wqkv(c, QkvMerge::kProperty, Mode::kFaithful),
            stored(kE4M3, {4, 2}, {1.75, 2, -1.75, 448, 1.75, 1, 1, 0.5}));
  EXPECT_EQ(*qkv_weight_scale(c, QkvMerge::kProperty), stored(kF32, {4, 1}, {25, 25, 28, 1}));
}

TEST(Wqkv, DynamicFloat8KeepsCodesAndBroadcastsScales) {
  const Case c = fp8_case(ActivationQuant::kToken);
  for (const QkvMerge merge : {QkvMerge::kForward, QkvMerge::kProperty}) {
    EXPECT_EQ(wqkv(c, merge, Mode::kFaithful),
              stored(kE4M3, {4, 2}, {1.75, 2, -1.75, 448, 1.75, 1, 1, 0.5}));
    EXPECT_EQ(*qkv_weight_scale(c, merge), stored(kF32, {4, 1}, {25, 25, 28, 1}));
  }
  EXPECT_EQ(qkv_input_scale(c), std::nullopt);
  EXPECT_EQ(qkv_weight_scale_2(c), std::nullopt);
}

TEST(Wqkv, ScalesOfRowsAndBlocksAreStacked) {
  Case c = fp8_case(ActivationQuant::kToken);
  c.config.quant->weight_granularity = WeightGranularity::kRowwise;
  c.weights["q_proj.weight_scale"] = stored(kF32, {2, 1}, {1, 2});
  c.weights["k_proj.weight_scale"] = stored(kF32, {1, 1}, {3});
  c.weights["v_proj.weight_scale"] = stored(kF32, {1, 1}, {4});
  EXPECT_EQ(*qkv_weight_scale(c, QkvMerge::kForward), stored(kF32, {4, 1}, {1, 2, 3, 4}));

  c.config.quant->weight_granularity = WeightGranularity::kBlock;
  c.config.quant->block_n = 1;
  c.config.quant->block_k = 1;
  c.weights["q_proj.weight_scale"] = stored(kF32, {2, 2}, {1, 2, 3, 4});
  c.weights["k_proj.weight_scale"] = stored(kF32, {1, 2}, {5, 6});
  c.weights["v_proj.weight_scale"] = stored(kF32, {1, 2}, {7, 8});
  EXPECT_EQ(*qkv_weight_scale(c, QkvMerge::kForward),
            stored(kF32, {4, 2}, {1, 2, 3, 4, 5, 6, 7, 8}));
}

TEST(Wqkv, Nvfp4StacksBytesAndTakesTheLargestGlobalScale) {
  Case c = make_case(QuantEncoding::kNvfp4, ActivationQuant::kBlock);
  double byte = 1;
  for (const auto& [name, rows] : {std::pair{"q", 2}, {"k", 1}, {"v", 1}}) {
    const std::string proj = std::string(name) + "_proj.";
    c.weights[proj + "weight"] =
        stored(kBytes, {rows, 1}, std::vector<double>(static_cast<std::size_t>(rows), byte));
    c.weights[proj + "weight_scale"] =
        stored(kE4M3, {rows, 1}, std::vector<double>(static_cast<std::size_t>(rows), byte));
    c.weights[proj + "weight_scale_2"] = Tensor::scalar(kF32, byte / 4);
    c.weights[proj + "input_scale"] = Tensor::scalar(kF32, 1 / byte);
    byte *= 2;
  }
  EXPECT_EQ(wqkv(c, QkvMerge::kForward, Mode::kExact), stored(kBytes, {4, 1}, {1, 1, 2, 4}));
  EXPECT_EQ(*qkv_weight_scale(c, QkvMerge::kForward), stored(kE4M3, {4, 1}, {1, 1, 2, 4}));
  EXPECT_EQ(*qkv_weight_scale_2(c), 1.0);
  EXPECT_EQ(*qkv_input_scale(c), 1.0);
}

TEST(Wqkv, GptqIsCodesAboveScales) {
  Case c = make_case(QuantEncoding::kGptq, ActivationQuant::kNone);
  c.config.hidden_size = 8;
  // One word of eight 4-bit codes per row; q has two rows. float16 1 is 0x3c00, 2 is 0x4000.
  const auto give = [&](const std::string& name, const std::vector<std::uint64_t>& words,
                        const std::vector<double>& scales) {
    const std::int64_t out = std::ssize(words);
    Tensor qweight(ElementType::kInt32, {1, out});
    for (std::int64_t n = 0; n < out; ++n) {
      qweight.set_code(n, words[static_cast<std::size_t>(n)]);
    }
    c.weights[name + ".qweight"] = qweight;
    c.weights[name + ".scales"] = stored(ElementType::kFloat16, {1, out}, scales);
  };
  give("q_proj", {0x76543210, 0xfedcba98}, {1, 2});
  give("k_proj", {0x11111111}, {1});
  give("v_proj", {0x22222222}, {2});
  EXPECT_EQ(wqkv(c, QkvMerge::kForward, Mode::kExact),
            stored(kBytes, {6, 4}, {0x10, 0x98, 0x11, 0x22,  //
                                    0x32, 0xba, 0x11, 0x22,  //
                                    0x54, 0xdc, 0x11, 0x22,  //
                                    0x76, 0xfe, 0x11, 0x22,  //
                                    0x00, 0x00, 0x00, 0x00,  //
                                    0x3c, 0x40, 0x3c, 0x40}));
  EXPECT_EQ(qkv_weight_scale(c, QkvMerge::kForward), std::nullopt);
}

TEST(Wqkv, GgufIsRefused) {
  const Case c = make_case(QuantEncoding::kQ4_K, ActivationQuant::kNone);
  for (const auto& [name, call] :
       {std::pair<std::string, void (*)(const Case&)>{
            "wqkv", [](const Case& g) { (void)wqkv(g, QkvMerge::kForward, Mode::kExact); }},
        {"wqkv_bias", [](const Case& g) { (void)wqkv_bias(g); }}}) {
    try {
      call(c);
      FAIL() << name << " was not refused";
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::kUnsupported);
      EXPECT_EQ(e.what(), name +
                              ": gguf weights of q, k and v are multiplied one by one, each in "
                              "its own encoding; use the three tensors");
    }
  }
}

TEST(WqkvBias, IsStackedOrAbsent) {
  Case c = make_case(QuantEncoding::kNone, ActivationQuant::kNone);
  EXPECT_EQ(wqkv_bias(c), std::nullopt);
  c.config.has_bias = true;
  c.weights["q_proj.bias"] = stored(kF32, {2}, {1, 2});
  c.weights["k_proj.bias"] = stored(kF32, {1}, {3});
  c.weights["v_proj.bias"] = stored(kF32, {1}, {4});
  EXPECT_EQ(*wqkv_bias(c), stored(kF32, {4}, {1, 2, 3, 4}));
}

TEST(Wqkv, TheForwardsMergeIsWhatTheProjectionsMultiplyBy) {
  for (const Mode mode : {Mode::kExact, Mode::kFaithful}) {
    const Case c = fp8_case(ActivationQuant::kStatic);
    const Tensor merged = wqkv(c, QkvMerge::kForward, mode);
    const double scale = qkv_weight_scale(c, QkvMerge::kForward)->value(0);
    std::int64_t i = 0;
    for (const Projection p : {Projection::kQ, Projection::kK, Projection::kV}) {
      const Matrix w = projection_weight(c, p, Rounding(mode));
      for (std::int64_t n = 0; n < w.rows(); ++n) {
        for (std::int64_t k = 0; k < w.cols(); ++k) {
          EXPECT_EQ(w(n, k), merged.value(i++) * scale);
        }
      }
    }
    EXPECT_EQ(i, merged.size());
  }
}

}  // namespace
}  // namespace attn::reference
