#include "harness/bench/shapes.h"

#include <sstream>

namespace attn::bench {
namespace {

std::string lengths(int batch, int first, int second) {
  std::ostringstream text;
  for (int b = 0; b < batch; ++b)
    text << (b > 0 ? "," : "") << "[" << first << "," << second << "]";
  return text.str();
}

std::string attention_spec(int batch, int rows, int keys, int heads, int kv_heads, int dim,
                           const char* mask) {
  std::ostringstream text;
  text << R"({"config":{"variant":"attention","entry_point":"attention","dtype":"bfloat16",)"
       << R"("num_attention_heads":)" << heads << R"(,"num_key_value_heads":)" << kv_heads
       << R"(,"head_dim":)" << dim << R"(,"mask":{"variant":")" << mask
       << R"("},"kv_cache":{"page_size":64,"dtype":"bfloat16"}},"rows":[)"
       << lengths(batch, rows, keys) << "]}";
  return text.str();
}

/// Llama-3.2-1B's geometry: a quarter of the weights to draw and to judge.
std::string small_layer_spec(int cached, int rows) {
  std::ostringstream text;
  text << R"({"config":{"dtype":"bfloat16","hidden_size":2048,"num_attention_heads":32,)"
       << R"("num_key_value_heads":8,"head_dim":64,"mask":{"variant":"causal"},)"
       << R"("rope":{"theta":500000.0,"interleaved":false},)"
       << R"("kv_cache":{"page_size":64,"dtype":"bfloat16"}},"rows":[)" << lengths(1, cached, rows)
       << "]}";
  return text.str();
}

/// Llama-3-8B's geometry. `quant`: "" or the text of "quant" and its comma.
std::string layer_spec(int batch, int cached, int rows, const char* variant, const char* quant,
                       const char* entry = "forward") {
  std::ostringstream text;
  text << R"({"config":{"variant":")" << variant << R"(","entry_point":")" << entry
       << R"(","dtype":"bfloat16","hidden_size":4096,"num_attention_heads":32,)"
       << R"("num_key_value_heads":8,"head_dim":128,"mask":{"variant":"causal"},)"
       << R"("rope":{"theta":500000.0,"interleaved":false},)" << quant
       << R"("kv_cache":{"page_size":64,"dtype":"bfloat16"}},"rows":[)"
       << lengths(batch, cached, rows) << "]}";
  return text.str();
}

/// gguf layers run in no other type.
std::string in_float32(std::string spec) {
  const std::string word = "bfloat16";
  for (auto at = spec.find(word); at != std::string::npos; at = spec.find(word)) {
    spec.replace(at, word.size(), "float32");
  }
  return spec;
}

constexpr const char* kPlain = "attention_with_rope";
constexpr const char* kInt4 = R"("quant":{"encoding":"gptq","bits":4,"group_size":128},)";

/// Small enough to draw fresh values for every repetition and to judge them exactly twice.
std::vector<Shape> small_shapes() {
  return {
      {"prefill", "prefill B1 S4096 32/8 causal",
       attention_spec(1, 4096, 4096, 32, 8, 128, "causal")},
      {"prefill", "prefill B1 S2048 16/8 D256 causal",
       attention_spec(1, 2048, 2048, 16, 8, 256, "causal")},
      {"decode", "decode B1 ctx2048 32/8", attention_spec(1, 1, 2048, 32, 8, 128, "causal")},
      {"decode", "decode B1 ctx8192 32/8", attention_spec(1, 1, 8192, 32, 8, 128, "causal")},
      {"decode", "decode B16 ctx2048 32/8", attention_spec(16, 1, 2048, 32, 8, 128, "causal")},
      {"layer", "layer prefill 1x256, hidden 2048", small_layer_spec(0, 256)},
      {"layer", "layer decode 1 x ctx2047, hidden 2048", small_layer_spec(2047, 1)},
      {"store", "k and v of 256 rows: projection, rope, store",
       layer_spec(1, 0, 256, kPlain, "", "materialize_kv_from_hidden")},
      {"projection", "layer 1 row, no cache, bfloat16", layer_spec(1, 0, 1, kPlain, "")},
      {"projection", "layer 1 row, no cache, gptq", layer_spec(1, 0, 1, "gptq", kInt4)},
      {"projection", "layer 1 row, no cache, q4_k and int8, float32",
       in_float32(
           layer_spec(1, 0, 1, "gguf", R"("quant":{"encoding":"q4_k","activation":"int8"},)"))},
      {"projection", "layer 16 rows, no cache, gptq", layer_spec(16, 0, 1, "gptq", kInt4)},
      {"projection", "layer 1x256, bfloat16", layer_spec(1, 0, 256, kPlain, "")},
      {"projection", "layer 1x256, gptq", layer_spec(1, 0, 256, "gptq", kInt4)},
      {"small", "small layer, 4 rows",
       R"({"config":{"hidden_size":256,"num_attention_heads":4,"num_key_value_heads":2,)"
       R"("head_dim":64,"dtype":"float32","kv_cache":{"dtype":"float32"}},"rows":[[16,4]]})"},
  };
}

/// What models run: the cases of the goals in docs/benchmarks.md.
std::vector<Shape> large_shapes() {
  const auto attention = [](const char* group, const char* name, int batch, int rows, int keys,
                            int heads, int kv_heads, int dim, const char* mask) {
    return Shape{group, name, attention_spec(batch, rows, keys, heads, kv_heads, dim, mask), true};
  };
  const auto prefill = [&](const char* name, int batch, int rows, int heads, int kv_heads, int dim,
                           const char* mask) {
    return attention("prefill", name, batch, rows, rows, heads, kv_heads, dim, mask);
  };
  const auto decode = [&](const char* name, int batch, int rows, int keys, int heads, int kv_heads,
                          int dim) {
    return attention("decode", name, batch, rows, keys, heads, kv_heads, dim, "causal");
  };
  // The product of a layer with 32 and 8 heads, 4096 -> 6144, and what follows it, without
  // attention.
  const std::string heads = R"("num_attention_heads":32,"num_key_value_heads":8)";
  Shape store{"store", "k and v of 4096 rows, 24 heads: projection, rope, store",
              layer_spec(1, 0, 4096, kPlain, "", "materialize_kv_from_hidden"), true};
  store.spec.replace(store.spec.find(heads), heads.size(),
                     R"("num_attention_heads":24,"num_key_value_heads":24)");
  // Half the bytes of the same caches.
  const auto coded = [](Shape shape, const char* name) {
    const std::string plain = R"("page_size":64,"dtype":"bfloat16")";
    shape.name = name;
    shape.spec.replace(shape.spec.find(plain), plain.size(),
                       R"("page_size":64,"dtype":"float8_e4m3fn","scale_granularity":"tensor")");
    return shape;
  };
  Shape window = prefill("prefill B1 S16384 32/8 W1024", 1, 16384, 32, 8, 128, "causal");
  const std::string causal = R"("mask":{"variant":"causal"})";
  window.spec.replace(window.spec.find(causal), causal.size(),
                      R"("mask":{"variant":"sliding_window_causal","window_size":1024})");
  Shape ragged =
      prefill("prefill ragged 8 rows of 5 to 4096, 32/32 causal", 1, 1, 32, 32, 128, "causal");
  ragged.spec.replace(ragged.spec.find("[[1,1]]"), 7,
                      "[[5,5],[4096,4096],[37,37],[2048,2048],[130,130],[1024,1024],[3000,3000],"
                      "[512,512]]");
  const char* const fp8 =
      R"("quant":{"encoding":"float8_e4m3fn","activation":"token","weight_granularity":"rowwise"},)";
  return {
      prefill("prefill B1 S512 32/8 causal", 1, 512, 32, 8, 128, "causal"),
      prefill("prefill B8 S2048 32/8 causal", 8, 2048, 32, 8, 128, "causal"),
      prefill("prefill B1 S16384 32/8 causal", 1, 16384, 32, 8, 128, "causal"),
      prefill("prefill B4 S4096 16/16 full", 4, 4096, 16, 16, 128, "null"),
      prefill("prefill B2 S4096 32/32 D64 causal", 2, 4096, 32, 32, 64, "causal"),
      prefill("prefill B2 S4096 16/8 D256 causal", 2, 4096, 16, 8, 256, "causal"),
      window,
      ragged,
      decode("decode B1 ctx32768 32/8", 1, 1, 32768, 32, 8, 128),
      decode("decode B4 ctx32768 8/1", 4, 1, 32768, 8, 1, 128),
      decode("decode B16 ctx8192 32/8", 16, 1, 8192, 32, 8, 128),
      decode("decode B64 ctx2048 32/8", 64, 1, 2048, 32, 8, 128),
      decode("decode B256 ctx1024 32/8", 256, 1, 1024, 32, 8, 128),
      decode("decode B16 ctx8192 32/8 D64", 16, 1, 8192, 32, 8, 64),
      decode("decode B16 ctx8192 16/8 D256", 16, 1, 8192, 16, 8, 256),
      decode("decode B16 ctx8192 32/8 q4", 16, 4, 8192, 32, 8, 128),
      decode("decode B16 ctx8192 32/8 q16", 16, 16, 8192, 32, 8, 128),
      coded(decode("", 16, 1, 8192, 32, 8, 128), "decode B16 ctx8192 32/8 fp8 cache"),
      coded(decode("", 64, 1, 2048, 32, 8, 128), "decode B64 ctx2048 32/8 fp8 cache"),
      coded(prefill("", 1, 4096, 32, 8, 128, "causal"), "prefill B1 S4096 32/8 causal fp8 cache"),
      coded(prefill("", 1, 16384, 32, 8, 128, "causal"), "prefill B1 S16384 32/8 causal fp8 cache"),
      coded(prefill("", 1, 16384, 16, 16, 128, "null"), "prefill B1 S16384 16/16 full fp8 cache"),
      {"layer", "layer prefill 1x4096", layer_spec(1, 0, 4096, kPlain, ""), true},
      {"layer", "layer prefill 8x2048", layer_spec(8, 0, 2048, kPlain, ""), true},
      store,
      {"layer", "layer decode 64 x ctx 8191", layer_spec(64, 8191, 1, kPlain, ""), true},
      {"layer", "layer decode 1 x ctx 8191", layer_spec(1, 8191, 1, kPlain, ""), true},
      {"projection", "layer 1x4096, float8", layer_spec(1, 0, 4096, kPlain, fp8), true},
  };
}

}  // namespace

const std::vector<Shape>& shapes() {
  static const std::vector<Shape> kShapes = [] {
    std::vector<Shape> all = small_shapes();
    const std::vector<Shape> large = large_shapes();
    all.insert(all.end(), large.begin(), large.end());
    return all;
  }();
  return kShapes;
}

std::string shapes_json(const std::vector<Shape>& listed) {
  std::ostringstream text;
  text << "[";
  for (const Shape& shape : listed) {
    text << (&shape == listed.data() ? "\n" : ",\n") << R"({"group":")" << shape.group
         << R"(","name":")" << shape.name << R"(","large":)" << (shape.is_large ? "true" : "false")
         << R"(,"case":)" << shape.spec << "}";
  }
  text << "\n]\n";
  return text.str();
}

}  // namespace attn::bench
