// Products of quantised weights at every number of rows where another kernel takes over, judged
// against the exact reference by the bound of what is declared.
#include <array>
#include <string>
#include <vector>

#include "harness/backends/execution.h"
#include "harness/compare/compare.h"
#include "harness/generate/case_spec.h"
#include "tests/gpu/device_cases.h"
#include "tests/gpu/device_fixture.h"
#include "tests/gpu/seeds.h"

namespace attn::harness {
namespace {

struct Format {
  const char* name;
  const char* variant;
  const char* dtype;
  const char* quant;
};

constexpr std::array kFormats{
    Format{"gptq g128", "gptq", "bfloat16", R"({"encoding":"gptq","bits":4,"group_size":128})"},
    Format{"gptq g16", "gptq", "float16", R"({"encoding":"gptq","bits":4,"group_size":16})"},
    Format{"gptq g32", "gptq", "bfloat16", R"({"encoding":"gptq","bits":4,"group_size":32})"},
    Format{"gptq by row, 8 bits", "gptq", "bfloat16",
           R"({"encoding":"gptq","bits":8,"group_size":-1})"},
    Format{"gptq in order of activations", "gptq", "bfloat16",
           R"({"encoding":"gptq","bits":4,"group_size":64,"desc_act":true})"},
    Format{"gptq, float32", "gptq", "float32", R"({"encoding":"gptq","bits":4,"group_size":64})"},
    Format{"fp8 static", "attention_with_rope", "bfloat16",
           R"({"encoding":"float8_e4m3fn","activation":"static","weight_granularity":"tensor"})"},
    Format{"fp8 by row and token", "attention_with_rope", "float16",
           R"({"encoding":"float8_e4m3fn","activation":"token","weight_granularity":"rowwise"})"},
    Format{"fp8 by block", "attention_with_rope", "bfloat16",
           R"({"encoding":"float8_e4m3fn","activation":"block","weight_granularity":"block",)"
           R"("block":[32,128]})"},
    Format{"fp8 weights alone", "attention_with_rope", "bfloat16",
           R"({"encoding":"float8_e4m3fn","weight_granularity":"rowwise"})"},
    Format{"nvfp4", "attention_with_rope", "bfloat16",
           R"({"encoding":"nvfp4","activation":"block"})"},
    Format{"nvfp4 weights alone", "attention_with_rope", "bfloat16", R"({"encoding":"nvfp4"})"},
    Format{"mxfp4", "attention_with_rope", "float16",
           R"({"encoding":"mxfp4","activation":"block"})"},
    Format{"mxfp8", "attention_with_rope", "bfloat16",
           R"({"encoding":"mxfp8","activation":"block"})"},
    Format{"q4_0", "gguf", "float32", R"({"encoding":"q4_0","activation":"int8"})"},
    Format{"q8_0", "gguf", "float32", R"({"encoding":"q8_0","activation":"int8"})"},
    Format{"q4_k", "gguf", "float32", R"({"encoding":"q4_k","activation":"int8"})"},
    Format{"q5_k", "gguf", "float32", R"({"encoding":"q5_k","activation":"int8"})"},
    Format{"q6_k", "gguf", "float32", R"({"encoding":"q6_k","activation":"int8"})"},
    Format{"q4_k, float32", "gguf", "float32", R"({"encoding":"q4_k"})"},
    Format{"q6_k, float32", "gguf", "float32", R"({"encoding":"q6_k"})"},
};

/// k and v of `rows` rows: a product with 320 rows of W, two tiles and a half, and no attention.
Case product_case(const Format& format, int rows, int hidden, std::uint64_t seed) {
  const std::string type = format.dtype;
  return make_case(parse_case_spec(R"({"config":{"variant":")" + std::string(format.variant) +
                                   R"(","entry_point":"materialize_kv_from_hidden","dtype":")" +
                                   type + R"(","hidden_size":)" + std::to_string(hidden) +
                                   R"(,"num_attention_heads":16,"num_key_value_heads":2,)"
                                   R"("head_dim":80,"has_bias":)" +
                                   (seed % 2 == 0 ? "true" : "false") + R"(,"quant":)" +
                                   format.quant + R"(,"kv_cache":{"page_size":16,"dtype":")" +
                                   type + R"("}},"rows":[[0,)" + std::to_string(rows) + "]]}"),
                   seed);
}

using GpuCodedProduct = OnDevice;

/// What is wrong with the backend's answer, "" when nothing is.
std::string mistake_in(const Backend& backend, const Case& c, const char* format,
                       ExecMode mode = ExecMode::kPlain) {
  CompareOptions options;
  options.check_trust = false;
  const Verdict verdict = compare(c, execute(backend, mode, c, nullptr, all_stages()),
                                  backend.arithmetic(c.config), options);
  if (verdict.status == Status::kPassed) return "";
  return std::string(format) + ", " + std::to_string(c.tokens()) + " rows: " + verdict.detail +
         ": " + c.repro;
}

/// What modes are dealt by: a format's seeds have one remainder by three, as formats are 21.
std::uint64_t mode_of(std::uint64_t seed) { return seed + seed / kFormats.size(); }

TEST_F(GpuCodedProduct, IsRightForAnyNumberOfRows) {
  const std::vector<int> rows{1, 2, 3, 8, 9, 16, 17, 33, 65, 130, 300, 2100};
  const std::size_t cases = kFormats.size() * rows.size() * 2;
  const auto backend = make_backend("cuda");
  expect_none(for_each_seed(0, cases, [&](std::uint64_t seed) {
    const Format& format = kFormats.at(seed % kFormats.size());
    const std::uint64_t rest = seed / kFormats.size();
    return mistake_in(*backend,
                      product_case(format, rows.at(rest % rows.size()),
                                   rest / rows.size() == 0 ? 768 : 1536, seed),
                      format.name);
  }));
}

/// Up to 16 rows as the streamed products take them: fused, and behind a pass of their own; at
/// once, twice in the same memory, and replayed. Formats that they do not take go the usual way.
TEST_F(GpuCodedProduct, IsRightAsAStream) {
  constexpr std::array kModes{ExecMode::kPlain, ExecMode::kRepeat, ExecMode::kGraph};
  const auto backend = make_backend("cuda:coded=stream");
  const std::size_t cases = kFormats.size() * 16 * 2;
  expect_none(for_each_seed(0, cases, [&](std::uint64_t seed) {
    const Format& format = kFormats.at(seed % kFormats.size());
    const std::uint64_t rest = seed / kFormats.size();
    const Case c =
        product_case(format, static_cast<int>(rest % 16) + 1, rest / 16 == 0 ? 768 : 1536, seed);
    return mistake_in(*backend, c, format.name, kModes.at(mode_of(seed) % kModes.size()));
  }));
}

/// One row: few stages and many, warps that share units of x and such that do not.
TEST_F(GpuCodedProduct, IsRightAsAStreamOfOneRow) {
  constexpr std::array kModes{ExecMode::kPlain, ExecMode::kRepeat, ExecMode::kGraph};
  constexpr std::array kWidths{256, 768, 1536, 4096, 5120};
  const auto backend = make_backend("cuda:coded=stream");
  expect_none(for_each_seed(0, kFormats.size() * kWidths.size(), [&](std::uint64_t seed) {
    const Format& format = kFormats.at(seed % kFormats.size());
    const Case c = product_case(format, 1, kWidths.at(seed / kFormats.size()), seed);
    return mistake_in(*backend, c, format.name, kModes.at(mode_of(seed) % kModes.size()));
  }));
}

/// The same rows by the kernels that take what the streams do not.
TEST_F(GpuCodedProduct, IsRightWithoutStreams) {
  const auto backend = make_backend("cuda:coded=few");
  expect_none(for_each_seed(0, kFormats.size() * 16, [&](std::uint64_t seed) {
    const Format& format = kFormats.at(seed % kFormats.size());
    return mistake_in(*backend,
                      product_case(format, static_cast<int>(seed / kFormats.size()) + 1, 768, seed),
                      format.name);
  }));
}

/// gptq's weights by clusters of blocks: one row to more than a tile, widths that make parts of one
/// chunk and of several; others go the usual way.
TEST_F(GpuCodedProduct, IsRightByClusters) {
  constexpr std::array kModes{ExecMode::kPlain, ExecMode::kRepeat, ExecMode::kGraph};
  constexpr std::array kRows{1, 8, 15, 16, 17, 31, 32, 33, 50, 64, 65, 100, 128, 129, 256, 257};
  constexpr std::array kWidths{256, 768, 1536, 4096};
  const auto backend = make_backend("cuda:coded=cluster");
  const std::size_t cases = kFormats.size() * kRows.size() * kWidths.size();
  expect_none(for_each_seed(0, cases, [&](std::uint64_t seed) -> std::string {
    const Format& format = kFormats.at(seed % kFormats.size());
    if (std::string_view(format.variant) != "gptq") return "";
    const std::uint64_t rest = seed / kFormats.size();
    const Case c =
        product_case(format, kRows.at(rest % kRows.size()), kWidths.at(rest / kRows.size()), seed);
    return mistake_in(*backend, c, format.name, kModes.at(mode_of(seed) % kModes.size()));
  }));
}

/// For compute-sanitizer: clusters, and one row by kernels of their own.
TEST_F(GpuCodedProduct, PassesASmallCoveringSet) {
  const auto backend = make_backend("cuda");
  for (const Format& format : kFormats) {
    const std::string_view name = format.name;
    if (name != "gptq g128" && name != "q4_k") continue;
    for (const int rows : {1, 20}) {
      EXPECT_EQ(mistake_in(*backend, product_case(format, rows, 256, 1), format.name), "");
    }
  }
}

/// A kernel's shared memory depends on the width, and its allowance is one number for all host
/// threads: a thread that lowered it would make the launches of the others fail.
TEST_F(GpuCodedProduct, HostThreadsOfDifferentWidthsDoNotDisturbEachOther) {
  const std::array widths{1536, 256, 768, 512};
  const auto backend = make_backend("cuda");
  expect_none(for_each_seed(0, 512, [&](std::uint64_t seed) {
    const Format& format = kFormats.at(seed / 4 % 2 == 0 ? 0 : 7);
    const int rows = seed / 8 % 2 == 0 ? 1 : 24;
    return mistake_in(*backend, product_case(format, rows, widths.at(seed % 4), seed), format.name);
  }));
}

/// Widths that are no whole chunks of 64 columns: the kernels fill up with codes of 0.
TEST_F(GpuCodedProduct, TakesWidthsThatAreNoWholeChunks) {
  const auto backend = make_backend("cuda");
  const auto stream = make_backend("cuda:coded=stream");
  const auto few = make_backend("cuda:coded=few");
  const auto cluster = make_backend("cuda:coded=cluster");
  for (const Format& format : kFormats) {
    const std::string quant = format.quant;
    const auto has = [&](const char* word) { return quant.find(word) != std::string::npos; };
    if (has("_k\"") || has("group_size\":128") || has("group_size\":64")) continue;
    for (const int rows : {1, 12, 40}) {
      for (const int hidden : {96, 160}) {
        const Case c = product_case(format, rows, hidden, 7);
        EXPECT_EQ(mistake_in(*backend, c, format.name), "");
        EXPECT_EQ(mistake_in(*stream, c, format.name), "") << "coded=stream";
        EXPECT_EQ(mistake_in(*few, c, format.name), "") << "coded=few";
        EXPECT_EQ(mistake_in(*cluster, c, format.name), "") << "coded=cluster";
      }
    }
  }
}

}  // namespace
}  // namespace attn::harness
