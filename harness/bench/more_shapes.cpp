#include "harness/bench/more_shapes.h"

#include <algorithm>
#include <filesystem>
#include <sstream>

#include "harness/generate/case_spec.h"
#include "reference/core/error.h"

namespace attn::bench {
namespace {

namespace fs = std::filesystem;

/// One attention call of `batch` equal sequences.
struct Call {
  const char* name;
  int batch;
  int rows;
  int keys;
  int heads;
  int kv_heads;
  int dim;
  const char* mask;
  const char* cache;
};

std::string spec_of(const Call& call) {
  std::ostringstream text;
  text << R"({"config":{"variant":"attention","entry_point":"attention","dtype":"bfloat16",)"
       << R"("num_attention_heads":)" << call.heads << R"(,"num_key_value_heads":)" << call.kv_heads
       << R"(,"head_dim":)" << call.dim << R"(,"mask":{"variant":")" << call.mask
       << R"("},"kv_cache":{"page_size":64,)" << call.cache << R"(}},"rows":[)";
  for (int b = 0; b < call.batch; ++b) {
    text << (b > 0 ? "," : "") << "[" << call.rows << "," << call.keys << "]";
  }
  text << "]}";
  return text.str();
}

constexpr const char* kBf16 = R"("dtype":"bfloat16")";
constexpr const char* kFp8 = R"("dtype":"float8_e4m3fn","scale_granularity":"tensor")";

/// Llama-3-8B's geometry, `rows` tokens of each of `batch` sequences behind `cached` ones: without
/// any of these, projections most of all.
std::string layer_spec(int rows, const char* more, int batch = 1, int cached = 0) {
  std::ostringstream text;
  text << R"({"config":{"dtype":"bfloat16","hidden_size":4096,"num_attention_heads":32,)"
       << R"("num_key_value_heads":8,"head_dim":128,"mask":{"variant":"causal"},)"
       << R"("rope":{"theta":500000.0,"interleaved":false},)" << more
       << R"("kv_cache":{"page_size":64,"dtype":"bfloat16"}},"rows":[)";
  for (int b = 0; b < batch; ++b) {
    text << (b > 0 ? "," : "") << '[' << cached << ',' << rows << ']';
  }
  text << "]}";
  return text.str();
}

}  // namespace

std::vector<Shape> target_shapes() {
  constexpr Call kCalls[] = {
      {"prefill B1 S2048 32/8 causal", 1, 2048, 2048, 32, 8, 128, "causal", kBf16},
      {"prefill B1 S16384 64/8 causal", 1, 16384, 16384, 64, 8, 128, "causal", kBf16},
      {"prefill B1 S16384 16/16 full", 1, 16384, 16384, 16, 16, 128, "null", kBf16},
      {"prefill B1 S16384 32/32 D64 causal", 1, 16384, 16384, 32, 32, 64, "causal", kBf16},
      {"prefill B1 S16384 16/8 D256 causal", 1, 16384, 16384, 16, 8, 256, "causal", kBf16},
      {"decode B1 ctx131072 32/8", 1, 1, 131072, 32, 8, 128, "causal", kBf16},
      {"decode B64 ctx8192 32/8", 64, 1, 8192, 32, 8, 128, "causal", kBf16},
      {"decode B16 ctx8192 32/8, fp8 cache", 16, 1, 8192, 32, 8, 128, "causal", kFp8},
  };
  std::vector<Shape> shapes;
  for (const Call& call : kCalls) shapes.push_back({"targets", call.name, spec_of(call), true});
  const auto layer = [&](const std::string& name, int rows, const char* more, int batch = 1,
                         int cached = 0) {
    shapes.push_back({"targets", name, layer_spec(rows, more, batch, cached), true});
  };
  constexpr const char* kInt4 =
      R"("variant":"gptq","quant":{"encoding":"gptq","bits":4,"group_size":128},)";
  constexpr const char* kFp8Weights =
      R"("quant":{"encoding":"float8_e4m3fn","activation":"token","weight_granularity":"rowwise"},)";
  for (const int rows : {8, 16, 64, 256, 4096, 16384}) {
    const std::string name = "layer " + std::to_string(rows) + " rows, no cache";
    layer(name + ", bfloat16", rows, "");
    if (rows <= 4096 && rows != 16) layer(name + ", gptq", rows, kInt4);  // 16: shapes() has it
    layer(name + ", float8", rows, kFp8Weights);
  }
  constexpr const char* kNorm = R"("use_qk_norm":true,)";
  layer("layer prefill 1x4096, qk-norm", 4096, kNorm);
  layer("layer prefill 8x2048, qk-norm", 2048, kNorm, 8);
  layer("layer decode 64 x ctx 8191, qk-norm", 1, kNorm, 64, 8191);
  layer("layer decode 1 x ctx 8191, qk-norm", 1, kNorm, 1, 8191);
  return shapes;
}

std::vector<Shape> model_shapes(const std::string& folder) {
  std::vector<fs::path> files;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const fs::path& path = entry.path();
    if (path.extension() == ".json" && path.stem() != "checkpoint_names") files.push_back(path);
  }
  std::ranges::sort(files);
  if (files.empty()) {
    throw Error(ErrorKind::kUsage,
                "--models " + folder + ": no case files; data/models of the sources has some",
                "--models");
  }
  std::vector<Shape> shapes;
  for (const fs::path& file : files) {
    harness::CaseSpec spec = harness::load_case_spec(file.string());
    const std::string model = file.stem().string();
    const auto add = [&](const std::string& name, harness::RowSpec row) {
      spec.rows = {row};
      shapes.push_back({"models", "model " + model + " " + name, to_json(spec), true});
    };
    if (spec.config.starts_at_attention()) {
      const bool decode = model.find("decode") != std::string::npos;
      decode ? add("1 row, 2048 keys", {1, 2048}) : add("512 rows, 512 keys", {512, 512});
      continue;
    }
    add("prefill 1x512", {0, 512});
    add("decode 1 x ctx2047", {2047, 1});
  }
  return shapes;
}

}  // namespace attn::bench
