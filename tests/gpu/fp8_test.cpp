// Products of float8 codes by cuBLASLt (backend cuda:fp8=cublaslt) in every scaling, against the
// exact reference; and the pass that quantises for them, to the bit.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "harness/backends/execution.h"
#include "harness/compare/compare.h"
#include "harness/generate/case_spec.h"
#include "tests/gpu/device_cases.h"
#include "tests/gpu/device_fixture.h"
#include "tests/gpu/seeds.h"

#if ATTN_WITH_CUDA
#include "gpu/kernels/fp8_quantise.h"
#include "gpu/layers/layer.h"
#endif

namespace attn::harness {
namespace {

constexpr const char* kCublasLt = "cuda:fp8=cublaslt";

struct Format {
  const char* name;
  const char* dtype;
  const char* quant;
};

constexpr std::array kFormats{
    Format{"static, tensor", "bfloat16",
           R"({"encoding":"float8_e4m3fn","activation":"static","weight_granularity":"tensor"})"},
    Format{"static, tensor, float16", "float16",
           R"({"encoding":"float8_e4m3fn","activation":"static","weight_granularity":"tensor"})"},
    Format{"token, tensor", "float16",
           R"({"encoding":"float8_e4m3fn","activation":"token","weight_granularity":"tensor"})"},
    Format{"token, row", "bfloat16",
           R"({"encoding":"float8_e4m3fn","activation":"token","weight_granularity":"rowwise"})"},
    Format{"token, row, float32", "float32",
           R"({"encoding":"float8_e4m3fn","activation":"token","weight_granularity":"rowwise"})"},
    Format{"128 columns, 128 x 128", "bfloat16",
           R"({"encoding":"float8_e4m3fn","activation":"block","weight_granularity":"block",)"
           R"("block":[128,128]})"},
    Format{"128 columns, 32 x 128", "float16",
           R"({"encoding":"float8_e4m3fn","activation":"block","weight_granularity":"block",)"
           R"("block":[32,128]})"},
};

struct Shape {
  int hidden = 768;
  int heads = 4;
  int kv_heads = 2;
  int head_dim = 64;
  const char* more = "";  ///< of the config
};

/// Rows that a product must take as they come: zeros, and values past the cap of 1200.
void add_hard_rows(Case& c) {
  const std::int64_t width = c.config.hidden_size;
  for (std::int64_t row = 0; row < c.tokens(); ++row) {
    if (row % 5 == 3) {
      for (std::int64_t i = 0; i < width; ++i) c.x.set_value(row * width + i, 0.0);
    }
    if (row % 5 == 4) c.x.set_value(row * width + row % width, row % 2 == 0 ? 3000.0 : -3000.0);
  }
}

/// Two sequences with `rows` new tokens together.
Case layer_case(const Format& format, const Shape& shape, int rows, std::uint64_t seed,
                bool forward = true) {
  const std::string type = format.dtype;
  const int first = rows / 3;
  const std::string lengths =
      first == 0 ? "[[2," + std::to_string(rows) + "]]"
                 : "[[2," + std::to_string(first) + "],[0," + std::to_string(rows - first) + "]]";
  Case c = make_case(
      parse_case_spec(
          std::string(R"({"config":{"variant":"attention_with_rope",)") +
          (forward ? "" : R"("entry_point":"materialize_kv_from_hidden",)") + shape.more +
          R"("dtype":")" + type + R"(","hidden_size":)" + std::to_string(shape.hidden) +
          R"(,"num_attention_heads":)" + std::to_string(shape.heads) +
          R"(,"num_key_value_heads":)" + std::to_string(shape.kv_heads) + R"(,"head_dim":)" +
          std::to_string(shape.head_dim) + R"(,"quant":)" + format.quant +
          R"(,"kv_cache":{"page_size":16,"dtype":")" + type + R"("}},"rows":)" + lengths + "}"),
      seed);
  add_hard_rows(c);
  return c;
}

std::string mistake_in(const Backend& backend, const Case& c, const Trace& trace,
                       const char* format) {
  CompareOptions options;
  options.check_trust = false;
  const Verdict verdict = compare(c, trace, backend.arithmetic(c.config), options);
  if (verdict.status == Status::kPassed) return "";
  return std::string(format) + ", " + std::to_string(c.tokens()) + " rows: " + verdict.detail +
         ": with hard rows: " + c.repro;
}

bool has_blocks(const Format& format) {
  return std::string(format.quant).find("128]") != std::string::npos;
}

constexpr std::array kRows{1, 17, 128, 300, 301};

using GpuFp8 = OnDevice;

TEST_F(GpuFp8, IsRightInEveryScaling) {
  const auto backend = make_backend(kCublasLt);
  const std::array shapes{
      Shape{}, Shape{1280, 4, 2, 64, R"("has_bias":true,)"},
      Shape{768, 8, 4, 96, R"("has_bias":true,"clip_activations":0.5,)"},
      Shape{768, 3, 1, 20}};  // 100 rows of W and an input of 60 columns: our own kernels
  expect_none(for_each_seed(
      0, kFormats.size() * kRows.size() * shapes.size(), [&](std::uint64_t seed) -> std::string {
        const Format& format = kFormats.at(seed % kFormats.size());
        const std::uint64_t rest = seed / kFormats.size();
        const Shape& shape = shapes.at(rest / kRows.size());
        if (has_blocks(format) && shape.head_dim == 20) return "";
        const Case c = layer_case(format, shape, kRows.at(rest % kRows.size()), seed);
        return mistake_in(*backend, c, backend->run(c, all_stages()), format.name);
      }));
}

TEST_F(GpuFp8, IsRightForTheCacheAlone) {
  const auto backend = make_backend(kCublasLt);
  expect_none(for_each_seed(0, kFormats.size() * kRows.size(), [&](std::uint64_t seed) {
    const Format& format = kFormats.at(seed % kFormats.size());
    const Case c = layer_case(format, {}, kRows.at(seed / kFormats.size()), seed, false);
    return mistake_in(*backend, c, backend->run(c, all_stages()), format.name);
  }));
}

/// Captured, repeated, padded, after another call and in dirty memory.
TEST_F(GpuFp8, IsRightInEveryMode) {
  const auto backend = make_backend(kCublasLt);
  constexpr std::array kModes{ExecMode::kRepeat,       ExecMode::kGraph,  ExecMode::kGraphReplay,
                              ExecMode::kDirtyScratch, ExecMode::kPadded, ExecMode::kSecondCall};
  expect_none(for_each_seed(0, kFormats.size() * kModes.size(), [&](std::uint64_t seed) {
    const Format& format = kFormats.at(seed % kFormats.size());
    const ExecMode mode = kModes.at(seed / kFormats.size());
    const Case c = layer_case(format, {}, 45, seed);
    Case other = layer_case(format, {}, 70, seed + 1000);
    other.weights = c.weights;
    const Trace trace = execute(*backend, mode, c, &other, all_stages());
    const std::string mistake = mistake_in(*backend, c, trace, format.name);
    return mistake.empty() ? "" : std::string(name_of(mode)) + ": " + mistake;
  }));
}

/// The default's threshold, and widths of a model.
TEST_F(GpuFp8, TheDefaultIsRightOnBothSidesOfItsThreshold) {
  const auto backend = make_backend("cuda");
  const Shape shape{1024, 8, 4, 64};
  for (const Format& format : kFormats) {
    for (const int rows : {16, 17, 64}) {
      const Case c = layer_case(format, shape, rows, 5);
      EXPECT_EQ(mistake_in(*backend, c, backend->run(c, all_stages()), format.name), "");
    }
  }
}

#if ATTN_WITH_CUDA

/// Says which scalings the library has an algorithm for, so that the tests above do not pass by
/// our own kernels unseen.
TEST_F(GpuFp8, CublasLtTakesEveryScaling) {
  if (!gpu::has_cublas_lt_fp8()) {
    GTEST_SKIP() << "NOT TESTED: no cuBLASLt of 12.9 or later, or no compute capability 9.0";
  }
  gpu::LayerOptions options;
  options.fp8 = gpu::Fp8Products::kLibrary;
  for (const Format& format : kFormats) {
    for (const bool bias : {false, true}) {
      Shape shape;
      if (bias) shape.more = R"("has_bias":true,)";
      const Case c = layer_case(format, shape, 45, 1);
      const gpu::AttentionLayer layer(c.config, c.weights, options);
      for (const std::int64_t rows : {1, 17, 45, 128, 4096}) {
        const gpu::LayerPlan plan = layer.plan({{rows}, {0}});
        ASSERT_EQ(plan.coded.size(), 1U);
        const bool qkv = plan.coded[0].fp8.taken();
        const bool out = plan.out_coded.fp8.taken();
        std::printf("%-24s %s %5lld rows: q, k, v %s, out %s\n", format.name,
                    bias ? "bias   " : "no bias", static_cast<long long>(rows),
                    qkv ? "cublaslt" : "own", out ? "cublaslt" : "own");
        if (rows <= 16) continue;  // which the default leaves to our own kernels
        EXPECT_TRUE(out) << format.name << ", " << rows << " rows";
        // float32 outputs have no bias of their type.
        if (!bias || std::string(format.dtype) != "float32") {
          EXPECT_TRUE(qkv) << format.name << ", " << rows << " rows, bias " << bias;
        }
      }
    }
  }
}

/// The documented steps, each rounded to float32 as the host rounds it.
std::uint8_t expected_code(float x, float scale) {
  const float inverse = 1.0f / scale;
  float quotient = 0.0f;
  if (std::isnormal(inverse)) {
    quotient = x * inverse;
  } else if (scale != 0.0f) {
    quotient = x / scale;
  }
  return static_cast<std::uint8_t>(
      encode(ElementType::kFloat8E4M3FN, static_cast<double>(quotient)));
}

ElementType element_of(gpu::Type type) {
  return type == gpu::Type::kFloat32    ? ElementType::kFloat32
         : type == gpu::Type::kBFloat16 ? ElementType::kBFloat16
                                        : ElementType::kFloat16;
}

/// Rows of every size: ordinary, zero, past the cap, with infinity, and so small that the
/// reciprocal of their scale is infinite.
Tensor rows_to_quantise(ElementType type, std::int64_t rows, std::int64_t width) {
  Tensor x(type, {rows, width});
  for (std::int64_t i = 0; i < rows * width; ++i) {
    const std::int64_t row = i / width;
    const double size =
        std::array{1.0, 0.0, 5000.0, 1e-38, 1e-3, 7.0}[static_cast<std::size_t>(row % 6)];
    const double t = static_cast<double>((i * 2654435761LL + row) % 4093) / 2046.0 - 1.0;
    x.set_value(i, t * size);
  }
  if (rows > 5) x.set_value(5 * width + width / 2, std::numeric_limits<double>::infinity());
  return x;
}

struct Quantised {
  std::vector<std::uint8_t> codes;
  std::vector<float> scales;
};

Quantised expected_of(const Tensor& x, gpu::Fp8QuantiseArguments a) {
  Quantised want;
  want.codes.resize(static_cast<std::size_t>(a.padded_rows * a.width));
  const std::int64_t block = a.scale_of == gpu::Fp8ScaleOf::kBlock ? 128 : a.width;
  const std::int64_t blocks = a.width / block;
  const bool given = a.scale_of == gpu::Fp8ScaleOf::kTensor;
  if (!given) want.scales.resize(static_cast<std::size_t>(blocks * a.padded_rows));
  for (std::int64_t row = 0; row < a.rows; ++row) {
    for (std::int64_t b = 0; b < blocks; ++b) {
      const auto value = [&](std::int64_t i) {
        return static_cast<float>(x.value(row * a.width + b * block + i));
      };
      float amax = 0.0f;
      for (std::int64_t i = 0; i < block; ++i) amax = std::max(amax, std::abs(value(i)));
      const float scale = given ? a.scale : std::min(amax, 1200.0f) / 448.0f;
      if (!given) want.scales[static_cast<std::size_t>(b * a.padded_rows + row)] = scale;
      for (std::int64_t i = 0; i < block; ++i) {
        want.codes[static_cast<std::size_t>(row * a.width + b * block + i)] =
            expected_code(value(i), scale);
      }
    }
  }
  return want;
}

/// Elements behind the last that stay as they were.
constexpr std::size_t kGuarded = 64;

std::string mistake_of_quantising(gpu::Type type, gpu::Fp8ScaleOf scale_of, std::int64_t rows,
                                  std::int64_t padded, std::int64_t width) {
  const Tensor x = rows_to_quantise(element_of(type), rows, width);
  gpu::Fp8QuantiseArguments a;
  a.type = type;
  a.scale_of = scale_of;
  a.scale = 0.0371f;
  a.rows = rows;
  a.padded_rows = padded;
  a.width = width;
  const Quantised want = expected_of(x, a);
  const gpu::Stream stream;
  const gpu::Buffer values(x.bytes().size());
  const gpu::Buffer codes(want.codes.size() + kGuarded);
  const gpu::Buffer scales((want.scales.size() + kGuarded) * sizeof(float));
  gpu::copy_to_device(values.data(), x.data(), values.size(), stream.get());
  gpu::fill_bytes(codes.data(), 0xa5, codes.size(), stream.get());
  gpu::fill_bytes(scales.data(), 0xa5, scales.size(), stream.get());
  a.x = values.data();
  a.codes = codes.data();
  a.scales = reinterpret_cast<float*>(scales.data());
  gpu::quantise_fp8(a, stream.get());
  std::vector<std::uint8_t> got(codes.size());
  std::vector<float> got_scales(want.scales.size() + kGuarded);
  gpu::copy_to_host(got.data(), codes.data(), codes.size(), stream.get());
  gpu::copy_to_host(got_scales.data(), scales.data(), scales.size(), stream.get());
  stream.synchronize();

  const auto at = [&](std::size_t i) {
    return ", type " + std::to_string(static_cast<int>(type)) + ", scale of " +
           std::to_string(static_cast<int>(scale_of)) + ", width " + std::to_string(width) +
           ", element " + std::to_string(i);
  };
  for (std::size_t i = 0; i < got.size(); ++i) {
    const int wanted = i < want.codes.size() ? want.codes[i] : 0xa5;
    if (got[i] == wanted) continue;
    return "code " + std::to_string(got[i]) + " where " + std::to_string(wanted) + at(i);
  }
  for (std::size_t i = 0; i < want.scales.size(); ++i) {
    if (got_scales[i] == want.scales[i]) continue;
    return "scale " + std::to_string(got_scales[i]) + " where " + std::to_string(want.scales[i]) +
           at(i);
  }
  return "";
}

TEST_F(GpuFp8, QuantisesToTheBit) {
  for (const gpu::Type type : {gpu::Type::kFloat32, gpu::Type::kBFloat16, gpu::Type::kFloat16}) {
    for (const std::int64_t width : {16, 128, 1008, 2048, 4096, 5120, 8192, 11008}) {
      EXPECT_EQ(mistake_of_quantising(type, gpu::Fp8ScaleOf::kRow, 13, 13, width), "");
      EXPECT_EQ(mistake_of_quantising(type, gpu::Fp8ScaleOf::kTensor, 13, 13, width), "");
      if (width % 128 != 0) continue;
      EXPECT_EQ(mistake_of_quantising(type, gpu::Fp8ScaleOf::kBlock, 13, 16, width), "");
    }
  }
}

#endif

}  // namespace
}  // namespace attn::harness
