// GGUF files that the tests write: names, rope style, metadata, every encoding.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "golden/golden_file.h"
#include "golden/import/checkpoint_names.h"
#include "reference/core/element.h"
#include "tests/import/files.h"
#include "tests/import/tiny_model.h"

namespace attn::test {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using GgufTensors = std::map<std::string, GgufTensor>;

constexpr std::int64_t kDim = TinyModel::kDim;

/// The order in which llama.cpp's converter keeps the rows of a head of q and k: channel j and
/// channel j + d/2 become neighbours.
Tensor permuted(const Tensor& rows) {
  Tensor out(rows.type(), rows.shape());
  const std::int64_t width = rows.dim(1);
  for (std::int64_t row = 0; row < rows.dim(0); ++row) {
    const std::int64_t head = row / kDim;
    const std::int64_t j = row % kDim / 2;
    const std::int64_t from = head * kDim + (row % 2) * (kDim / 2) + j;
    for (std::int64_t i = 0; i < width; ++i) {
      out.set_code(row * width + i, rows.code(from * width + i));
    }
  }
  return out;
}

json metadata(const std::string& arch, const json& more = json::object()) {
  json keys = {{"general.architecture", arch},
               {"tokenizer.ggml.tokens", {"a", "b", "c"}},
               {arch + ".block_count", 8},
               {arch + ".embedding_length", TinyModel::kHidden},
               {arch + ".context_length", 4096},
               {arch + ".attention.head_count", TinyModel::kHeads},
               {arch + ".attention.head_count_kv", TinyModel::kKvHeads},
               {arch + ".attention.key_length", kDim},
               {arch + ".attention.value_length", kDim},
               {arch + ".attention.layer_norm_rms_epsilon", 0.25},
               {arch + ".rope.dimension_count", kDim},
               {arch + ".rope.freq_base", 5000.0}};
  for (const auto& item : more.items()) keys[arch + "." + item.key()] = item.value();
  return keys;
}

GgufTensors dense_layer(ElementType type, bool fused = false) {
  GgufTensors t;
  if (fused) {
    t["blk.1.attn_qkv.weight"] = gguf_dense(stack(
        {tiny_weight("q_proj", type), tiny_weight("k_proj", type), tiny_weight("v_proj", type)}));
  } else {
    t["blk.1.attn_q.weight"] = gguf_dense(tiny_weight("q_proj", type));
    t["blk.1.attn_k.weight"] = gguf_dense(tiny_weight("k_proj", type));
    t["blk.1.attn_v.weight"] = gguf_dense(tiny_weight("v_proj", type));
  }
  t["blk.1.attn_output.weight"] = gguf_dense(tiny_weight("o_proj", type));
  return t;
}

Ran import(const std::string& path, const std::string& out,
           const std::vector<std::string>& more = {}) {
  std::vector<std::string> args = {"golden", "import", "--model", path,     "--layer",
                                   "1",      "-o",     out,       "--force"};
  args.insert(args.end(), more.begin(), more.end());
  return run(args);
}

struct Known {
  std::string arch;
  bool interleaved = false;
  bool window = false;
  bool fused = false;
  bool norm = false;
  bool bias = false;
  bool sinks = false;
};
const std::vector<Known> kArchitectures = {
    {.arch = "llama", .interleaved = true},
    {.arch = "qwen2", .bias = true},
    {.arch = "qwen2moe", .bias = true},
    {.arch = "qwen3", .norm = true},
    {.arch = "qwen3moe", .norm = true},
    {.arch = "olmo", .interleaved = true},
    {.arch = "olmo2"},
    {.arch = "phi3", .window = true, .fused = true},
    {.arch = "gemma"},
    {.arch = "gemma2"},
    {.arch = "gemma3", .window = true, .norm = true},
    {.arch = "command-r", .interleaved = true},
    {.arch = "cohere2", .interleaved = true, .window = true},
    {.arch = "gpt-oss", .bias = true, .sinks = true},
    {.arch = "granite", .interleaved = true},
};

TEST(Gguf, EveryArchitectureOfTheTable) {
  std::vector<std::string> tested;
  for (const Known& known : kArchitectures) {
    SCOPED_TRACE(known.arch);
    tested.push_back(known.arch);
    const TempFolder folder;
    GgufTensors t = dense_layer(ElementType::kFloat16, known.fused);
    if (known.bias) {
      for (const auto& [name, part] :
           {std::pair{"q_proj", "q"}, {"k_proj", "k"}, {"v_proj", "v"}}) {
        const std::string target = std::string("blk.1.attn_") + part + ".bias";
        t[target] = gguf_dense(Tensor::from_values(ElementType::kFloat32, tiny_bias(name).shape(),
                                                   tiny_bias(name).values()));
      }
    }
    if (known.norm) {
      t["blk.1.attn_q_norm.weight"] =
          gguf_dense(random_tensor("qn", ElementType::kFloat32, {kDim}));
      t["blk.1.attn_k_norm.weight"] =
          gguf_dense(random_tensor("kn", ElementType::kFloat32, {kDim}));
    }
    if (known.sinks) {
      t["blk.1.attn_sinks.weight"] =
          gguf_dense(random_tensor("s", ElementType::kFloat32, {TinyModel::kHeads}));
    }
    const bool has_window = known.window || known.arch == "gemma2" || known.arch == "gpt-oss";
    const json more = has_window ? json{{"attention.sliding_window", 7}} : json::object();
    write_bytes(folder / "m.gguf", gguf_bytes(metadata(known.arch, more), t));
    const Ran ran = import(folder / "m.gguf", folder / "l.h5");
    ASSERT_EQ(ran.code, 0) << ran.out << ran.err;
    const golden::GoldenFile file = golden::read(folder / "l.h5");
    const AttentionConfig c = file.config();
    EXPECT_EQ(c.rope.interleaved, known.interleaved);
    // Windowed layers of Gemma 3 have a theta of their own.
    EXPECT_EQ(c.rope.theta, known.arch == "gemma3" ? 10000.0 : 5000.0);
    EXPECT_EQ(c.mask.window_size.value_or(0), known.window ? 7 : 0);
    EXPECT_EQ(c.stacked_qkv, known.fused);
    EXPECT_EQ(c.use_qk_norm, known.norm);
    EXPECT_EQ(c.rms_norm_eps, 0.25);
    EXPECT_EQ(c.has_bias, known.bias);
    EXPECT_EQ(file.has("weights/sinks"), known.sinks);
    EXPECT_EQ(c.dtype, ElementType::kFloat16);
    EXPECT_EQ(file.datasets.at("weights/o_proj.weight"),
              tiny_weight("o_proj", ElementType::kFloat16));
    const Ran verified = run({"verify", folder / "l.h5", "--backend", "exact", "--backend", "cpu"});
    EXPECT_EQ(verified.code, 0) << verified.out << verified.err;
  }
  EXPECT_THAT(tested, testing::UnorderedElementsAreArray(
                          golden::known_model_types(golden::CheckpointFormat::kGguf)));
}

double largest_difference(const std::vector<double>& a, const std::vector<double>& b) {
  double difference = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i)
    difference = std::max(difference, std::abs(a[i] - b[i]));
  return difference;
}

/// One model in both formats, in the rows' order of each: the layer's output must be the same, and
/// is not when either rope style is wrong. The scaling of Llama 3 is in the one file a config key,
/// in the other a tensor of factors.
TEST(Gguf, SameModelAsHuggingFaceSameOutput) {
  constexpr double kTheta = 5000.0, kFactor = 8.0, kLow = 1.0, kHigh = 4.0, kOriginal = 64.0;
  const TempFolder folder;
  TinyModel m;
  m.config["model_type"] = "llama";
  m.config["rope_theta"] = kTheta;
  m.config["rope_scaling"] = {{"rope_type", "llama3"},
                              {"factor", kFactor},
                              {"low_freq_factor", kLow},
                              {"high_freq_factor", kHigh},
                              {"original_max_position_embeddings", 64}};
  m.write_folder(folder.path());

  // What llama.cpp's converter stores: the divisor of each frequency.
  Tensor factors(ElementType::kFloat32, {kDim / 2});
  for (std::int64_t j = 0; j < kDim / 2; ++j) {
    const double frequency =
        std::pow(kTheta, -2.0 * static_cast<double>(j) / static_cast<double>(kDim));
    const double wavelength = 2.0 * std::numbers::pi / frequency;
    double factor = 1.0;
    if (wavelength > kOriginal / kLow) {
      factor = kFactor;
    } else if (wavelength >= kOriginal / kHigh) {
      const double smooth = (kOriginal / wavelength - kLow) / (kHigh - kLow);
      factor = 1.0 / ((1.0 - smooth) / kFactor + smooth);
    }
    factors.set_value(j, factor);
  }
  GgufTensors t = dense_layer(ElementType::kBFloat16);
  t["blk.1.attn_q.weight"] = gguf_dense(permuted(tiny_weight("q_proj")));
  t["blk.1.attn_k.weight"] = gguf_dense(permuted(tiny_weight("k_proj")));
  t["rope_freqs.weight"] = gguf_dense(factors);
  write_bytes(folder / "m.gguf", gguf_bytes(metadata("llama"), t));

  const std::vector<std::string> prefill = {"--tokens", "[[0, 9]]"};
  ASSERT_EQ(import(folder.path(), folder / "hf.h5", prefill).code, 0);
  ASSERT_EQ(import(folder / "m.gguf", folder / "gguf.h5", prefill).code, 0);
  const golden::GoldenFile hf = golden::read(folder / "hf.h5");
  const golden::GoldenFile gguf = golden::read(folder / "gguf.h5");
  ASSERT_EQ(hf.datasets.at("inputs/x"), gguf.datasets.at("inputs/x"));
  const std::vector<double> want = hf.datasets.at("expected/out").values();
  // The factors are float32 and the tables round their angles' cosines to float32: at 9 positions
  // an entry is off by at most 9 * 2^-24 + 2^-24 < 6e-7. 1e-5 of the largest output leaves room for
  // q and k of size 4 in the logits; a wrong style changes outputs by their own size.
  double largest = 0.0;
  for (const double value : want) largest = std::max(largest, std::abs(value));
  EXPECT_LT(largest_difference(want, gguf.datasets.at("expected/out").values()), 1e-5 * largest);

  write_bytes(folder / "plain.gguf", gguf_bytes(metadata("llama"), [&] {
                GgufTensors other = t;
                other["blk.1.attn_q.weight"] = gguf_dense(tiny_weight("q_proj"));
                return other;
              }()));
  ASSERT_EQ(import(folder / "plain.gguf", folder / "plain.h5", prefill).code, 0);
  EXPECT_GT(largest_difference(
                want, golden::read(folder / "plain.h5").datasets.at("expected/out").values()),
            0.01 * largest);
}

TEST(Gguf, MetadataBecomesGeometry) {
  const auto config = [](const std::string& arch, const json& more) {
    const TempFolder folder;
    write_bytes(folder / "m.gguf",
                gguf_bytes(metadata(arch, more), dense_layer(ElementType::kFloat32), 2));
    const Ran ran = import(folder / "m.gguf", folder / "l.h5");
    EXPECT_EQ(ran.code, 0) << ran.err;
    return ran.code == 0 ? golden::read(folder / "l.h5").config() : AttentionConfig{};
  };
  EXPECT_EQ(config("llama", {{"rope.dimension_count", 8}}).rope.rotary_dim, 8);
  EXPECT_EQ(config("llama", {{"attention.head_count_kv", {1, 2, 4}}}).num_key_value_heads, 2);
  EXPECT_EQ(config("gemma2", {{"attn_logit_softcapping", 30.0}}).logit_softcap, 30.0);
  EXPECT_EQ(config("granite", {{"attention.scale", 0.125}}).scale, 0.125);
  EXPECT_EQ(config("olmo", {{"attention.clamp_kqv", 0.5}}).clip_activations, 0.5);
  const RopeScaling linear =
      config("llama", {{"rope.scaling.type", "linear"}, {"rope.scaling.factor", 4.0}}).rope.scaling;
  EXPECT_EQ(linear.type, RopeScalingType::kLinear);
  EXPECT_EQ(linear.factor, 4.0);
  const RopeScaling yarn = config("qwen2", {{"rope.scaling.type", "yarn"},
                                            {"rope.scaling.factor", 4.0},
                                            {"rope.scaling.original_context_length", 1024}})
                               .rope.scaling;
  EXPECT_EQ(yarn.type, RopeScalingType::kYarn);
  EXPECT_EQ(yarn.original_max_position_embeddings, 1024);
  // Gemma 2 27B, 46 layers: 1 / sqrt(hidden_size / heads) = 1 / sqrt(64 / 4).
  EXPECT_EQ(config("gemma2", {{"block_count", 46}}).scale, 0.25);
  const json pattern = {{"attention.sliding_window", 9},
                        {"attention.sliding_window_pattern", {true, false, true}}};
  EXPECT_EQ(config("gpt-oss", pattern).mask.variant, MaskVariant::kCausal);
}

struct Block {
  std::string name;
  std::uint32_t id;
  std::uint64_t elements;
  std::uint64_t bytes;
  std::vector<std::size_t> scales;  ///< where float16 scales lie
};
const std::vector<Block> kBlocks = {{"q4_0", 2, 32, 18, {0}},
                                    {"q8_0", 8, 32, 34, {0}},
                                    {"q4_k", 12, 256, 144, {0, 2}},
                                    {"q5_k", 13, 256, 176, {0, 2}},
                                    {"q6_k", 14, 256, 210, {208}}};

/// Random codes under scales of about 1e-3.
GgufTensor quantised(const std::string& name, const Block& block, std::uint64_t rows,
                     std::uint64_t columns) {
  GgufTensor t{block.id, {columns, rows}, ""};
  const std::uint64_t blocks = rows * columns / block.elements;
  Tensor raw =
      random_bytes(name, ElementType::kUInt8, {static_cast<std::int64_t>(blocks * block.bytes)});
  for (std::uint64_t b = 0; b < blocks; ++b) {
    for (const std::size_t at : block.scales) {
      const std::uint64_t code =
          encode(ElementType::kFloat16, 1e-3 * static_cast<double>(1 + b % 5));
      raw.bytes()[b * block.bytes + at] = static_cast<std::byte>(code & 255);
      raw.bytes()[b * block.bytes + at + 1] = static_cast<std::byte>(code >> 8);
    }
  }
  t.bytes.assign(reinterpret_cast<const char*>(raw.data()), raw.bytes().size());
  return t;
}

constexpr std::uint64_t kWide = 256;
json wide_metadata() {
  return metadata("llama", {{"embedding_length", kWide},
                            {"attention.head_count", 4},
                            {"attention.head_count_kv", 2},
                            {"attention.key_length", 64},
                            {"attention.value_length", 64},
                            {"rope.dimension_count", 64}});
}

TEST(Gguf, EveryEncodingIsKeptAsStored) {
  for (std::size_t i = 0; i < kBlocks.size(); ++i) {
    SCOPED_TRACE(kBlocks[i].name);
    const Block& mine = kBlocks[i];
    const Block& other = kBlocks[(i + 1) % kBlocks.size()];
    const TempFolder folder;
    GgufTensors t;
    t["blk.1.attn_q.weight"] = quantised("q", mine, kWide, kWide);
    t["blk.1.attn_k.weight"] = quantised("k", mine, kWide / 2, kWide);
    t["blk.1.attn_v.weight"] = quantised("v", other, kWide / 2, kWide);
    t["blk.1.attn_output.weight"] = quantised("o", mine, kWide, kWide);
    write_bytes(folder / "m.gguf", gguf_bytes(wide_metadata(), t));
    const Ran ran = import(folder / "m.gguf", folder / "l.h5");
    ASSERT_EQ(ran.code, 0) << ran.out << ran.err;
    const golden::GoldenFile file = golden::read(folder / "l.h5");
    const AttentionConfig c = file.config();
    EXPECT_EQ(c.variant, Variant::kGguf);
    EXPECT_EQ(name_of(c.quant->q_proj), mine.name);
    EXPECT_EQ(name_of(c.quant->v_proj), other.name);
    for (const auto& [ours, theirs] : {std::pair{"q", "q"}, {"v", "v"}, {"o", "output"}}) {
      const Tensor& stored = file.datasets.at(std::string("weights/") + ours + "_proj.weight");
      const std::string& wanted = t.at(std::string("blk.1.attn_") + theirs + ".weight").bytes;
      EXPECT_EQ(std::string(reinterpret_cast<const char*>(stored.data()), stored.bytes().size()),
                wanted);
    }
    const Ran verified = run({"verify", folder / "l.h5", "--backend", "exact", "--backend", "cpu"});
    EXPECT_EQ(verified.code, 0) << verified.out << verified.err;
  }
}

TEST(Gguf, AFusedQuantisedMatrixIsCutByRows) {
  const TempFolder folder;
  GgufTensors t;
  t["blk.1.attn_qkv.weight"] = quantised("qkv", kBlocks[2], 2 * kWide, kWide);
  t["blk.1.attn_output.weight"] = quantised("o", kBlocks[2], kWide, kWide);
  json keys = json::object();
  const json llama = wide_metadata();
  for (const auto& item : llama.items()) {
    std::string key = item.key();
    if (key.starts_with("llama.")) key.replace(0, 5, "phi3");
    keys[key] = item.value();
  }
  keys["general.architecture"] = "phi3";
  write_bytes(folder / "m.gguf", gguf_bytes(keys, t));
  const Ran ran = import(folder / "m.gguf", folder / "l.h5");
  ASSERT_EQ(ran.code, 0) << ran.out << ran.err;
  const golden::GoldenFile file = golden::read(folder / "l.h5");
  std::string joined;
  for (const char* name : {"q_proj", "k_proj", "v_proj"}) {
    const Tensor& part = file.datasets.at(std::string("weights/") + name + ".weight");
    joined.append(reinterpret_cast<const char*>(part.data()), part.bytes().size());
  }
  EXPECT_EQ(joined, t.at("blk.1.attn_qkv.weight").bytes);
}

TEST(Gguf, RefusesWhatItDoesNotDecode) {
  const auto refused = [](const GgufTensors& t, const json& keys, const std::string& what) {
    const TempFolder folder;
    write_bytes(folder / "m.gguf", gguf_bytes(keys, t));
    const Ran ran = import(folder / "m.gguf", folder / "l.h5");
    EXPECT_EQ(ran.code, 3) << ran.out;
    EXPECT_THAT(ran.err, HasSubstr(what));
    EXPECT_EQ(std::count(ran.err.begin(), ran.err.end(), '\n'), 1) << ran.err;
  };
  GgufTensors t;
  t["blk.1.attn_q.weight"] = quantised("q", kBlocks[0], kWide, kWide);
  t["blk.1.attn_k.weight"] = quantised("k", kBlocks[0], kWide / 2, kWide);
  t["blk.1.attn_v.weight"] = {10, {kWide, kWide / 2}, std::string(kWide / 2 * 84, '\1')};  // Q2_K
  t["blk.1.attn_output.weight"] = quantised("o", kBlocks[0], kWide, kWide);
  refused(t, wide_metadata(), "Q2_K");
  t["blk.1.attn_v.weight"] =
      gguf_dense(random_tensor("v", ElementType::kFloat32, {kWide / 2, kWide}));
  refused(t, wide_metadata(), "beside a quantised o_proj");
  refused(dense_layer(ElementType::kFloat32), metadata("mamba"), "not in the table");
  json keys = metadata("llama");
  keys.erase("general.architecture");
  refused(dense_layer(ElementType::kFloat32), keys, "general.architecture");
  refused(dense_layer(ElementType::kFloat32), metadata("llama", {{"attention.value_length", 8}}),
          "head_dim_v");
}

}  // namespace
}  // namespace attn::test
