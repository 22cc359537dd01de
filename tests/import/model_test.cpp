// Layers of tiny random checkpoints that the tests write in each family's own naming: what comes
// out must be the geometry and the bits that went in, and the file must verify.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "golden/golden_file.h"
#include "golden/import/checkpoint_names.h"
#include "reference/core/element.h"
#include "tests/import/files.h"
#include "tests/import/tiny_model.h"

namespace attn::test {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

/// What a family's checkpoints look like, written down from the published models: not read from
/// the table under test.
struct Known {
  std::string type;
  std::string prefix = "model.layers.1.self_attn.";
  std::string output = "o_proj";
  bool fused = false;
  bool interleaved = false;
  bool bias = false;
  bool norm = false;
  bool window = false;  ///< layer 1 has the window of 7 that the config gives
  bool sinks = false;
  double scale = 0.0;  ///< 0: 1 / sqrt(head_dim)
};

const std::vector<Known>& hugging_face() {
  static const std::vector<Known> kKnown = {
      {.type = "llama"},
      {.type = "mistral", .window = true},
      {.type = "mixtral", .window = true},
      {.type = "qwen2", .bias = true},
      {.type = "qwen2_moe", .bias = true},
      {.type = "qwen3", .norm = true},
      {.type = "qwen3_moe", .norm = true},
      {.type = "olmo"},
      {.type = "olmo2"},
      {.type = "olmo3", .window = true},
      {.type = "phi3", .fused = true, .window = true},
      {.type = "phi", .output = "dense", .bias = true},
      {.type = "gemma"},
      {.type = "gemma2", .window = false, .scale = 0.25},
      {.type = "gemma3_text", .norm = true, .window = true, .scale = 0.25},
      {.type = "gemma3",
       .prefix = "language_model.model.layers.1.self_attn.",
       .norm = true,
       .window = true,
       .scale = 0.25},
      {.type = "cohere", .interleaved = true},
      {.type = "cohere2", .interleaved = true, .window = true},
      {.type = "gpt_oss", .bias = true, .sinks = true},
      {.type = "granite", .scale = 0.125},
      {.type = "granitemoe", .scale = 0.125},
      {.type = "smollm3"},
      {.type = "glm", .interleaved = true, .bias = true},
      {.type = "glm4", .interleaved = true},
  };
  return kKnown;
}

TinyModel model_of(const Known& known) {
  TinyModel m;
  m.prefix = known.prefix;
  m.output = known.output;
  m.fused = known.fused;
  m.bias = known.bias;
  m.norm = known.norm;
  m.sinks = known.sinks;
  m.config["model_type"] = known.type;
  m.config["sliding_window"] = 7;
  m.config["query_pre_attn_scalar"] = 16;
  m.config["attention_multiplier"] = 0.125;
  return m;
}

class HuggingFace : public testing::TestWithParam<Known> {};

TEST_P(HuggingFace, LayerComesOutAsItWentIn) {
  const Known& known = GetParam();
  const TempFolder folder;
  const TinyModel m = model_of(known);
  m.write_folder(folder.path());
  const std::string out = folder / "layer.h5";
  const Ran imported =
      run({"golden", "import", "--model", folder.path(), "--layer", "1", "-o", out});
  ASSERT_EQ(imported.code, 0) << imported.out << imported.err;
  EXPECT_THAT(imported.out, HasSubstr("written; two evaluations agree"));

  const golden::GoldenFile file = golden::read(out);
  EXPECT_EQ(file.seal, golden::Seal::kSealed);
  const AttentionConfig c = file.config();
  EXPECT_EQ(c.num_attention_heads, TinyModel::kHeads);
  EXPECT_EQ(c.num_key_value_heads, TinyModel::kKvHeads);
  EXPECT_EQ(c.head_dim, TinyModel::kDim);
  EXPECT_EQ(c.hidden_size, TinyModel::kHidden);
  EXPECT_EQ(c.dtype, ElementType::kBFloat16);
  EXPECT_EQ(c.rope.interleaved, known.interleaved);
  EXPECT_EQ(c.has_bias, known.bias);
  EXPECT_EQ(c.use_qk_norm, known.norm);
  EXPECT_EQ(c.stacked_qkv, known.fused);
  EXPECT_EQ(c.mask.variant,
            known.window ? MaskVariant::kSlidingWindowCausal : MaskVariant::kCausal);
  EXPECT_EQ(c.mask.window_size.value_or(0), known.window ? 7 : 0);
  EXPECT_EQ(file.has("weights/sinks"), known.sinks);
  EXPECT_EQ(c.scale.value_or(0.0), known.scale);
  m.expect_weights_in(file);

  const Ran verified = run({"verify", out, "--backend", "exact", "--backend", "cpu"});
  EXPECT_EQ(verified.code, 0) << verified.out << verified.err;
}

INSTANTIATE_TEST_SUITE_P(Families, HuggingFace, testing::ValuesIn(hugging_face()),
                         [](const auto& known) { return known.param.type; });

TEST(CheckpointTable, EveryFamilyHasATest) {
  std::vector<std::string> tested;
  for (const Known& known : hugging_face()) tested.push_back(known.type);
  EXPECT_THAT(tested, testing::UnorderedElementsAreArray(
                          golden::known_model_types(golden::CheckpointFormat::kHuggingFace)));
}

/// The config that a folder with these keys of config.json gives.
AttentionConfig imported_config(const json& keys, const std::vector<std::string>& more = {},
                                const std::string& layer = "1") {
  const TempFolder folder;
  TinyModel m;
  m.prefix = "model.layers." + layer + ".self_attn.";
  m.config["model_type"] = "llama";
  m.config.update(keys);
  m.norm = keys.value("model_type", "") == "gemma3_text";
  m.write_folder(folder.path());
  std::vector<std::string> args = {"golden",  "import", "--model", folder.path(),
                                   "--layer", layer,    "-o",      folder / "l.h5"};
  args.insert(args.end(), more.begin(), more.end());
  const Ran imported = run(args);
  EXPECT_EQ(imported.code, 0) << imported.out << imported.err;
  return imported.code == 0 ? golden::read(folder / "l.h5").config() : AttentionConfig{};
}

TEST(ConfigJson, RopeKeys) {
  EXPECT_EQ(imported_config({{"rope_theta", 500000.0}}).rope.theta, 500000.0);
  EXPECT_EQ(imported_config({{"partial_rotary_factor", 0.5}}).rope.rotary_dim, 8);
  const auto scaling = [](const json& keys, const std::vector<std::string>& more = {}) {
    return imported_config({{"rope_scaling", keys}, {"max_position_embeddings", 64}}, more)
        .rope.scaling;
  };
  EXPECT_EQ(scaling({{"type", "default"}}).type, RopeScalingType::kDefault);
  EXPECT_EQ(scaling({{"type", "dynamic"}, {"factor", 2.0}}).type, RopeScalingType::kDynamic);
  const RopeScaling linear = scaling({{"type", "linear"}, {"factor", 4.0}});
  EXPECT_EQ(linear.type, RopeScalingType::kLinear);
  EXPECT_EQ(linear.factor, 4.0);
  const RopeScaling llama3 = scaling({{"rope_type", "llama3"},
                                      {"factor", 8.0},
                                      {"low_freq_factor", 1.5},
                                      {"high_freq_factor", 5.0},
                                      {"original_max_position_embeddings", 8192}});
  EXPECT_EQ(llama3.type, RopeScalingType::kLlama3);
  EXPECT_EQ(llama3.factor, 8.0);
  EXPECT_EQ(llama3.low_freq_factor, 1.5);
  EXPECT_EQ(llama3.high_freq_factor, 5.0);
  EXPECT_EQ(llama3.original_max_position_embeddings, 8192);
  // 0.1 ln 4 + 1 = 1.1386294
  const RopeScaling yarn =
      scaling({{"rope_type", "yarn"}, {"factor", 4.0}, {"attention_factor", 1.1386294}});
  EXPECT_EQ(yarn.type, RopeScalingType::kYarn);
  EXPECT_EQ(yarn.original_max_position_embeddings, 64);
  const RopeScaling deepseek =
      scaling({{"rope_type", "yarn"}, {"factor", 4.0}, {"mscale", 1.0}, {"mscale_all_dim", 0.7}});
  EXPECT_EQ(deepseek.type, RopeScalingType::kDeepseekYarn);
  EXPECT_EQ(deepseek.mscale_all_dim, 0.7);
  const json lists = {{"rope_type", "longrope"},
                      {"short_factor", std::vector<double>(8, 1.5)},
                      {"long_factor", std::vector<double>(8, 3.0)},
                      {"original_max_position_embeddings", 16}};
  const RopeScaling shorter = scaling(lists, {"--tokens", "[[0, 6]]"});
  EXPECT_EQ(shorter.type, RopeScalingType::kLongrope);
  EXPECT_EQ(shorter.short_factor, std::vector<double>(8, 1.5));
  EXPECT_EQ(shorter.max_position_embeddings, 64);
  EXPECT_FALSE(shorter.use_long);
  EXPECT_TRUE(scaling(lists, {"--tokens", "[[12, 6]]"}).use_long);
}

TEST(ConfigJson, RopeParametersOfNewerFiles) {
  const AttentionConfig c = imported_config(
      {{"rope_parameters", {{"rope_type", "linear"}, {"rope_theta", 777.0}, {"factor", 2.0}}}});
  EXPECT_EQ(c.rope.theta, 777.0);
  EXPECT_EQ(c.rope.scaling.type, RopeScalingType::kLinear);
  const json by_type = {
      {"model_type", "gemma3_text"},
      {"sliding_window", 7},
      {"layer_types", {"full_attention", "sliding_attention", "full_attention"}},
      {"rope_parameters",
       {{"sliding_attention", {{"rope_type", "default"}, {"rope_theta", 11.0}}},
        {"full_attention", {{"rope_type", "linear"}, {"factor", 8.0}, {"rope_theta", 22.0}}}}}};
  EXPECT_EQ(imported_config(by_type).rope.theta, 11.0);
  EXPECT_EQ(imported_config(by_type, {}, "2").rope.theta, 22.0);
  EXPECT_EQ(imported_config(by_type, {}, "2").rope.scaling.factor, 8.0);
}

TEST(ConfigJson, LocalThetaOfGemma3) {
  const json keys = {{"model_type", "gemma3_text"},
                     {"sliding_window", 7},
                     {"rope_theta", 1e6},
                     {"rope_local_base_freq", 10.0},
                     {"rope_scaling", {{"rope_type", "linear"}, {"factor", 8.0}}}};
  const AttentionConfig local = imported_config(keys);
  EXPECT_EQ(local.rope.theta, 10.0);
  EXPECT_EQ(local.rope.scaling.type, RopeScalingType::kDefault);
  const AttentionConfig global = imported_config(keys, {}, "5");  // the sixth
  EXPECT_EQ(global.rope.theta, 1e6);
  EXPECT_EQ(global.rope.scaling.factor, 8.0);
  EXPECT_EQ(global.mask.variant, MaskVariant::kCausal);
}

TEST(ConfigJson, Masks) {
  const auto mask = [](const json& keys, const char* layer = "1") {
    return imported_config(keys, {}, layer).mask;
  };
  const json qwen = {{"model_type", "qwen2"},
                     {"sliding_window", 9},
                     {"use_sliding_window", true},
                     {"max_window_layers", 2}};
  EXPECT_EQ(mask(qwen).variant, MaskVariant::kCausal);
  EXPECT_EQ(mask(qwen, "2").window_size, 9);
  const json gemma2 = {{"model_type", "gemma2"}, {"sliding_window", 9}};
  EXPECT_EQ(mask(gemma2, "2").window_size, 9);
  EXPECT_EQ(mask({{"model_type", "mistral"}, {"sliding_window", nullptr}}).variant,
            MaskVariant::kCausal);
  const MaskConfig chunked = mask(
      {{"layer_types", {"full_attention", "chunked_attention"}}, {"attention_chunk_size", 12}});
  EXPECT_EQ(chunked.variant, MaskVariant::kChunkedCausal);
  EXPECT_EQ(chunked.chunk_size, 12);
}

TEST(ConfigJson, CapsAndClips) {
  EXPECT_EQ(imported_config({{"attn_logit_softcapping", 30.0}}).logit_softcap, 30.0);
  EXPECT_EQ(imported_config({{"model_type", "olmo"}, {"clip_qkv", 0.75}}).clip_activations, 0.75);
  EXPECT_EQ(imported_config({{"rms_norm_eps", 0.25}}).rms_norm_eps, 0.25);
}

/// Refused with exit code 3 and one line that names `what`.
void expect_refused(const TinyModel& m, const std::string& what, const std::string& layer = "1") {
  const TempFolder folder;
  m.write_folder(folder.path());
  const Ran ran =
      run({"golden", "import", "--model", folder.path(), "--layer", layer, "-o", folder / "l.h5"});
  EXPECT_EQ(ran.code, 3) << ran.out << ran.err;
  EXPECT_THAT(ran.err, HasSubstr(what));
  EXPECT_EQ(std::count(ran.err.begin(), ran.err.end(), '\n'), 1) << ran.err;
  EXPECT_FALSE(std::filesystem::exists(folder / "l.h5"));
}

TEST(Refusals, SayWhatTheFamilyCannotRepresent) {
  const auto llama = [](const json& keys) {
    TinyModel m;
    m.config["model_type"] = "llama";
    m.config.update(keys);
    return m;
  };
  expect_refused(llama({{"model_type", "lama"}}), "did you mean \"llama\"");
  expect_refused(llama({{"num_hidden_layers", "many"}}), "num_hidden_layers");
  expect_refused(llama({{"num_attention_heads", 0}}), "num_attention_heads");
  expect_refused(llama({{"num_attention_heads", 5}}), "num_key_value_heads");
  expect_refused(llama({{"hidden_size", 96}}), "do the config and the file belong together");
  expect_refused(llama({{"rope_scaling", {{"rope_type", "mrope"}}}}), "mrope");
  expect_refused(llama({{"rope_scaling", {{"rope_type", "llama3"}}}}), "factor");
  expect_refused(
      llama({{"rope_scaling", {{"rope_type", "yarn"}, {"factor", 4.0}, {"attention_factor", 2.0}}},
             {"max_position_embeddings", 64}}),
      "attention_factor");
  expect_refused(llama({{"partial_rotary_factor", 1.5}}), "partial_rotary_factor");
  expect_refused(llama({{"layer_types", {"full_attention", "linear_attention"}}}),
                 "linear_attention");
  expect_refused(llama({{"layer_types", {"full_attention"}}}), "layer_types");
  expect_refused(llama({{"model_type", "smollm3"}, {"no_rope_layers", {1, 0}}}), "has no rope");
  TinyModel cohere = llama({{"model_type", "cohere2"}, {"sliding_window", 7}});
  cohere.prefix = "model.layers.3.self_attn.";
  expect_refused(cohere, "has no rope", "3");
  expect_refused(llama({{"model_type", "mistral"}, {"sliding_window", -3}}), "window");
}

TEST(Refusals, NormOverAllHeads) {
  TinyModel m;
  m.config["model_type"] = "olmo2";
  m.norm = true;
  m.norm_width = TinyModel::kHeads * TinyModel::kDim;
  expect_refused(m, "normalises each head");
}

TEST(Refusals, MissingTensors) {
  TinyModel m;
  m.config["model_type"] = "llama";
  m.leave_out = "v_proj.weight";
  expect_refused(m, "v_proj.weight");
  m.leave_out = "";
  m.prefix = "model.layers.0.self_attn.";
  expect_refused(m, "model.layers.1.self_attn.");
}

TEST(Refusals, ALayerThatDoesNotExistIsAUsageError) {
  const TempFolder folder;
  TinyModel m;
  m.config["model_type"] = "llama";
  m.write_folder(folder.path());
  const Ran ran =
      run({"golden", "import", "--model", folder.path(), "--layer", "9", "-o", folder / "l.h5"});
  EXPECT_EQ(ran.code, 2);
  EXPECT_THAT(ran.err, HasSubstr("layers 0 to 7"));
}

TEST(HuggingFaceFiles, ShardsAreOneCheckpoint) {
  const TempFolder whole;
  const TempFolder sharded;
  TinyModel m;
  m.config["model_type"] = "llama";
  m.write_folder(whole.path());
  m.write_shards(sharded.path());
  const auto import = [](const TempFolder& folder) {
    const Ran ran =
        run({"golden", "import", "--model", folder.path(), "--layer", "1", "-o", folder / "l.h5"});
    EXPECT_EQ(ran.code, 0) << ran.err;
    return golden::read(folder / "l.h5").content_sha256;
  };
  EXPECT_EQ(import(whole), import(sharded));
}

TEST(HuggingFaceFiles, AnIndexThatDoesNotMatchIsRefused) {
  TinyModel m;
  m.config["model_type"] = "llama";
  const auto refused = [&](const auto& damage, const std::string& what) {
    const TempFolder folder;
    m.write_shards(folder.path());
    const std::string path = folder / "model.safetensors.index.json";
    json index = json::parse(read_bytes(path));
    damage(index);
    write_bytes(path, index.dump());
    const Ran ran =
        run({"golden", "import", "--model", folder.path(), "--layer", "1", "-o", folder / "l.h5"});
    EXPECT_EQ(ran.code, 3) << ran.out;
    EXPECT_THAT(ran.err, HasSubstr(what));
  };
  const std::string q = "model.layers.1.self_attn.q_proj.weight";
  refused([&](json& i) { i["weight_map"][q] = "../secret.safetensors"; }, "beside the index");
  refused([&](json& i) { i["weight_map"][q] = "absent.safetensors"; }, "absent.safetensors");
  refused([&](json& i) { i["weight_map"]["x"] = i["weight_map"][q]; }, "does not hold it");
  refused([&](json& i) { i.erase("weight_map"); }, "weight_map");
}

TEST(HuggingFaceFiles, FusedRowsAreThoseOfTheSeparateOnes) {
  const auto out_of = [](const std::string& type, bool fused) {
    const TempFolder folder;
    TinyModel m;
    m.config["model_type"] = type;
    m.fused = fused;
    m.write_folder(folder.path());
    const Ran ran = run({"golden", "import", "--model", folder.path(), "--layer", "1", "--tokens",
                         "[[0, 6]]", "-o", folder / "l.h5"});
    EXPECT_EQ(ran.code, 0) << ran.err;
    return golden::read(folder / "l.h5").datasets.at("expected/out").values();
  };
  EXPECT_EQ(out_of("phi3", true), out_of("llama", false));
}

TEST(HuggingFaceFiles, Gemma3NormsAreOneMoreThanStored) {
  const TempFolder folder;
  TinyModel m;
  m.config["model_type"] = "gemma3_text";
  m.norm = true;
  m.write_folder(folder.path());
  ASSERT_EQ(
      run({"golden", "import", "--model", folder.path(), "--layer", "1", "-o", folder / "l.h5"})
          .code,
      0);
  const Tensor got = golden::read(folder / "l.h5").datasets.at("weights/q_norm.weight");
  const Tensor stored = m.tensors().at(m.prefix + "q_norm.weight");
  for (std::int64_t i = 0; i < got.size(); ++i) {
    EXPECT_EQ(got.value(i), static_cast<float>(1.0 + stored.value(i)));
  }
}

TEST(HuggingFaceFiles, TheOutputBiasIsNotedAndLeftOut) {
  const TempFolder folder;
  TinyModel m;
  m.config["model_type"] = "gpt_oss";
  m.bias = true;
  m.output_bias = true;
  m.write_folder(folder.path());
  const Ran ran =
      run({"golden", "import", "--model", folder.path(), "--layer", "1", "-o", folder / "l.h5"});
  EXPECT_EQ(ran.code, 0) << ran.err;
  EXPECT_THAT(ran.out, HasSubstr("note: o_proj.bias is left out"));
  EXPECT_THAT(golden::read(folder / "l.h5").provenance_json, HasSubstr("o_proj.bias is left out"));
}

TEST(HiddenStates, AreTakenFromAFile) {
  const TempFolder folder;
  TinyModel m;
  m.config["model_type"] = "llama";
  m.write_folder(folder.path());
  const Tensor hidden = random_tensor("hidden", ElementType::kBFloat16, {2, 3, TinyModel::kHidden});
  write_npz(folder / "h.npz", {{"states", hidden}}, true);
  const auto import = [&](const std::string& name, const std::vector<std::string>& more) {
    std::vector<std::string> args = {
        "golden",   "import", "--model", folder.path(),   "--layer", "1",
        "--hidden", name,     "-o",      folder / "l.h5", "--force"};
    args.insert(args.end(), more.begin(), more.end());
    return run(args);
  };
  ASSERT_EQ(import(folder / "h.npz:states", {}).code, 0);
  const golden::GoldenFile file = golden::read(folder / "l.h5");
  EXPECT_EQ(file.datasets.at("inputs/x").shape(), (Shape{6, TinyModel::kHidden}));
  EXPECT_TRUE(std::ranges::equal(file.datasets.at("inputs/x").bytes(), hidden.bytes()));
  EXPECT_EQ(file.datasets.at("inputs/input_row_offsets").values(), (std::vector<double>{0, 3, 6}));
  EXPECT_EQ(import(folder / "h.npz:states", {"--tokens", "[[9, 6]]"}).code, 0);
  EXPECT_EQ(import(folder / "h.npz:states", {"--tokens", "[[9, 5]]"}).code, 3);
  EXPECT_EQ(import(folder / "h.npz:absent", {}).code, 3);
  EXPECT_EQ(import(folder / "h.npz", {}).code, 2);
}

}  // namespace
}  // namespace attn::test
