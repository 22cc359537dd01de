// Checkpoints with float8, NVFP4 and GPTQ weights, as their makers name and shape them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "golden/golden_file.h"
#include "reference/core/element.h"
#include "tests/import/files.h"

namespace attn::test {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

// Heights and widths that 128 x 128 blocks divide.
constexpr std::int64_t kHidden = 256, kHeads = 4, kKvHeads = 2, kDim = 64;
const std::string kPrefix = "model.layers.0.self_attn.";
const std::vector<std::pair<std::string, std::int64_t>> kProjections = {{"q_proj", kHeads* kDim},
                                                                        {"k_proj", kKvHeads* kDim},
                                                                        {"v_proj", kKvHeads* kDim},
                                                                        {"o_proj", kHidden}};

json config_json(const json& quantisation) {
  return {{"model_type", "llama"},
          {"hidden_size", kHidden},
          {"num_attention_heads", kHeads},
          {"num_key_value_heads", kKvHeads},
          {"num_hidden_layers", 1},
          {"torch_dtype", "bfloat16"},
          {"quantization_config", quantisation}};
}

/// Scales of about 0.03, all different, as a checkpoint would have them in `type`.
Tensor scales(const std::string& name, Shape shape, ElementType type = ElementType::kFloat32) {
  Tensor t = random_tensor(name, ElementType::kFloat32, std::move(shape), 1.0);
  Tensor out(type, t.shape());
  for (std::int64_t i = 0; i < t.size(); ++i) {
    out.set_value(i, 0.03 * (1.0 + 0.5 * std::abs(t.value(i))));
  }
  return out;
}

/// The imported file, once it verified on exact and cpu.
golden::GoldenFile import(const Tensors& tensors, const json& config) {
  const TempFolder folder;
  write_bytes(folder / "config.json", config.dump());
  write_bytes(folder / "model.safetensors", safetensors_bytes(tensors));
  const Ran ran = run({"golden", "import", "--model", folder.path(), "-o", folder / "l.h5"});
  EXPECT_EQ(ran.code, 0) << ran.out << ran.err;
  if (ran.code != 0) return {};
  const Ran verified = run({"verify", folder / "l.h5", "--backend", "exact", "--backend", "cpu"});
  EXPECT_EQ(verified.code, 0) << verified.out << verified.err;
  return golden::read(folder / "l.h5");
}

void expect_refused(const Tensors& tensors, const json& config, const std::string& what) {
  const TempFolder folder;
  write_bytes(folder / "config.json", config.dump());
  write_bytes(folder / "model.safetensors", safetensors_bytes(tensors));
  const Ran ran = run({"golden", "import", "--model", folder.path(), "-o", folder / "l.h5"});
  EXPECT_EQ(ran.code, 3) << ran.out;
  EXPECT_THAT(ran.err, HasSubstr(what));
  EXPECT_EQ(std::count(ran.err.begin(), ran.err.end(), '\n'), 1) << ran.err;
}

Tensors fp8_codes() {
  Tensors t;
  for (const auto& [name, rows] : kProjections) {
    t[kPrefix + name + ".weight"] =
        random_tensor(name, ElementType::kFloat8E4M3FN, {rows, kHidden}, 2.0);
  }
  return t;
}

void expect_codes(const golden::GoldenFile& file, const Tensors& t) {
  for (const auto& [name, rows] : kProjections) {
    EXPECT_EQ(file.datasets.at("weights/" + name + ".weight"), t.at(kPrefix + name + ".weight"));
  }
}

TEST(Fp8, StaticScalesOfOneTensorEach) {
  Tensors t = fp8_codes();
  for (const auto& [name, rows] : kProjections) {
    t[kPrefix + name + ".weight_scale"] = scales(name + "w", {}, ElementType::kBFloat16);
    t[kPrefix + name + ".input_scale"] = scales(name + "x", {1});
  }
  const golden::GoldenFile file =
      import(t, config_json({{"quant_method", "fp8"}, {"activation_scheme", "static"}}));
  const QuantConfig quant = file.config().quant.value();
  EXPECT_EQ(quant.weight_granularity, WeightGranularity::kTensor);
  EXPECT_EQ(quant.activation, ActivationQuant::kStatic);
  expect_codes(file, t);
  EXPECT_EQ(file.datasets.at("weights/k_proj.weight_scale").value(0),
            t.at(kPrefix + "k_proj.weight_scale").value(0));
  EXPECT_EQ(file.datasets.at("weights/v_proj.input_scale").shape(), Shape{});
}

TEST(Fp8, AScalePerRow) {
  for (const bool column : {true, false}) {
    Tensors t = fp8_codes();
    for (const auto& [name, rows] : kProjections) {
      t[kPrefix + name + ".weight_scale"] = scales(name, column ? Shape{rows, 1} : Shape{rows});
    }
    const golden::GoldenFile file = import(t, config_json({{"quant_method", "fbgemm_fp8"}}));
    const QuantConfig quant = file.config().quant.value();
    EXPECT_EQ(quant.weight_granularity, WeightGranularity::kRowwise);
    EXPECT_EQ(quant.activation, ActivationQuant::kToken);
    expect_codes(file, t);
    EXPECT_EQ(file.datasets.at("weights/o_proj.weight_scale").values(),
              t.at(kPrefix + "o_proj.weight_scale").values());
  }
}

TEST(Fp8, Blocks) {
  Tensors t = fp8_codes();
  for (const auto& [name, rows] : kProjections) {
    t[kPrefix + name + ".weight_scale_inv"] = scales(name, {rows / 128, kHidden / 128});
  }
  const golden::GoldenFile file =
      import(t, config_json({{"quant_method", "fp8"}, {"weight_block_size", {128, 128}}}));
  const QuantConfig quant = file.config().quant.value();
  EXPECT_EQ(quant.weight_granularity, WeightGranularity::kBlock);
  EXPECT_EQ(quant.activation, ActivationQuant::kBlock);
  // "inv" or not, these checkpoints multiply by it.
  EXPECT_EQ(file.datasets.at("weights/q_proj.weight_scale"),
            t.at(kPrefix + "q_proj.weight_scale_inv"));
}

TEST(Fp8, WeightsOnly) {
  Tensors t = fp8_codes();
  for (const auto& [name, rows] : kProjections) {
    t[kPrefix + name + ".weight_scale"] = scales(name, {rows, 1});
  }
  const json quantisation = {
      {"quant_method", "compressed-tensors"},
      {"config_groups",
       {{"group_0", {{"weights", {{"num_bits", 8}}}, {"input_activations", nullptr}}}}}};
  EXPECT_EQ(import(t, config_json(quantisation)).config().quant->activation,
            ActivationQuant::kNone);
}

TEST(Fp8, Refusals) {
  Tensors t = fp8_codes();
  expect_refused(t, config_json({{"quant_method", "fp8"}}), "weight_scale");
  for (const auto& [name, rows] : kProjections) {
    t[kPrefix + name + ".weight_scale"] = scales(name, {rows, 3});
  }
  expect_refused(t, config_json({{"quant_method", "fp8"}}), "weight_scale");
  for (const auto& [name, rows] : kProjections)
    t[kPrefix + name + ".weight_scale"] = scales(name, {});
  expect_refused(t, config_json({{"quant_method", "fp8"}, {"activation_scheme", "static"}}),
                 "input scales are missing");
  t[kPrefix + "k_proj.weight"] = random_tensor("k", ElementType::kBFloat16, {128, kHidden});
  expect_refused(t, config_json({{"quant_method", "fp8"}}), "another way");
}

TEST(Nvfp4, EachProjectionKeepsItsOwnScales) {
  Tensors t;
  for (const auto& [name, rows] : kProjections) {
    t[kPrefix + name + ".weight"] = random_bytes(name, ElementType::kUInt8, {rows, kHidden / 2});
    t[kPrefix + name + ".weight_scale"] =
        scales(name + "s", {rows, kHidden / 16}, ElementType::kFloat8E4M3FN);
    t[kPrefix + name + ".weight_scale_2"] = scales(name + "2", {});
    t[kPrefix + name + ".input_scale"] = scales(name + "x", {});
  }
  const golden::GoldenFile file = import(t, config_json({{"quant_method", "modelopt"}}));
  EXPECT_EQ(file.config().quant->q_proj, QuantEncoding::kNvfp4);
  expect_codes(file, t);
  EXPECT_EQ(file.datasets.at("weights/v_proj.weight_scale_2"),
            t.at(kPrefix + "v_proj.weight_scale_2"));
}

/// Symmetric codes under float16 scales; zero points as the version stores them.
Tensors gptq(std::int64_t bits, std::int64_t group, bool act_order) {
  Tensors t;
  const std::int64_t per_word = 32 / bits;
  for (const auto& [name, rows] : kProjections) {
    const std::int64_t groups = group > 0 ? kHidden / group : 1;
    t[kPrefix + name + ".qweight"] =
        random_bytes(name, ElementType::kInt32, {kHidden / per_word, rows});
    t[kPrefix + name + ".scales"] = scales(name, {groups, rows}, ElementType::kFloat16);
    Tensor zeros(ElementType::kInt32, {groups, rows / per_word});
    for (std::int64_t i = 0; i < zeros.size(); ++i) {
      zeros.set_code(i, bits == 4 ? 0x77777777U : 0x7f7f7f7fU);
    }
    t[kPrefix + name + ".qzeros"] = zeros;
    if (!act_order) continue;
    Tensor index(ElementType::kInt32, {kHidden});
    for (std::int64_t k = 0; k < kHidden; ++k) {
      index.set_code(k, static_cast<std::uint64_t>((k * 5 + 3) % kHidden / group));
    }
    t[kPrefix + name + ".g_idx"] = index;
  }
  return t;
}

json gptq_config(std::int64_t bits, std::int64_t group, bool act_order) {
  return config_json({{"quant_method", "gptq"},
                      {"bits", bits},
                      {"group_size", group},
                      {"desc_act", act_order},
                      {"sym", true}});
}

TEST(Gptq, BitsGroupsAndActOrder) {
  for (const auto& [bits, group, act_order] :
       {std::tuple{4, 128, false}, {4, 32, true}, {8, 64, false}, {4, -1, false}}) {
    SCOPED_TRACE(bits * 1000 + group);
    const Tensors t = gptq(bits, group, act_order);
    const golden::GoldenFile file = import(t, gptq_config(bits, group, act_order));
    if (file.datasets.empty()) continue;
    const AttentionConfig c = file.config();
    EXPECT_EQ(c.variant, Variant::kGptq);
    EXPECT_EQ(c.quant->bits, bits);
    EXPECT_EQ(c.quant->group_size, group);
    EXPECT_EQ(c.quant->desc_act, act_order);
    for (const auto& [name, rows] : kProjections) {
      EXPECT_EQ(file.datasets.at("weights/" + name + ".qweight"),
                t.at(kPrefix + name + ".qweight"));
    }
    const Tensor& index = file.datasets.at("weights/q_proj.g_idx");
    if (!act_order) {
      EXPECT_EQ(index.value(kHidden - 1), group > 0 ? kHidden / group - 1 : 0);
    }
  }
}

TEST(Gptq, SettingsOfOlderCheckpointsLieInTheirOwnFile) {
  const TempFolder folder;
  json config = gptq_config(4, 128, false);
  const json settings = config["quantization_config"];
  config.erase("quantization_config");
  write_bytes(folder / "config.json", config.dump());
  write_bytes(folder / "quantize_config.json", settings.dump());
  write_bytes(folder / "model.safetensors", safetensors_bytes(gptq(4, 128, false)));
  const Ran ran = run({"golden", "import", "--model", folder.path(), "-o", folder / "l.h5"});
  EXPECT_EQ(ran.code, 0) << ran.out << ran.err;
}

TEST(Gptq, Refusals) {
  json asymmetric = gptq_config(4, 128, false);
  asymmetric["quantization_config"]["sym"] = false;
  expect_refused(gptq(4, 128, false), asymmetric, "sym");
  expect_refused(gptq(4, 128, false), gptq_config(3, 128, false), "bits");
  Tensors zero_points = gptq(4, 128, false);
  zero_points[kPrefix + "q_proj.qzeros"].set_code(0, 0x77777776U);
  expect_refused(zero_points, gptq_config(4, 128, false), "qzeros");
  Tensors no_index = gptq(4, 128, false);
  expect_refused(no_index, gptq_config(4, 128, true), "g_idx");
}

}  // namespace
}  // namespace attn::test
