// How many weights a second the cpu backend decodes on one core, for every format, and multiplies
// by a single row of activations, where decoding is most of the work. docs/benchmarks.md records
// the results.
#include <benchmark/benchmark.h>

#include <cstdint>
#include <string>
#include <vector>

#include "harness/backends/cpu/projection.h"
#include "harness/backends/cpu/weight_rows.h"
#include "harness/cli/heap.h"
#include "reference/core/case.h"
#include "reference/core/philox.h"

namespace {

using attn::AttentionConfig;
using attn::Case;
using attn::ElementType;
using attn::QuantConfig;
using attn::QuantEncoding;
using attn::Tensor;
using attn::WeightGranularity;
namespace cpu = attn::harness::cpu;

constexpr std::int64_t kRows = 1024;
constexpr std::int64_t kColumns = 4096;
constexpr std::int64_t kPanel = 16;  // rows decoded at a time, as in a projection

struct Format {
  std::string name;
  ElementType dtype = ElementType::kFloat32;
  QuantConfig quant;
};

Format dense(ElementType dtype) { return {std::string(element_name(dtype)), dtype, {}}; }

Format quantised(const std::string& name, QuantEncoding encoding) {
  Format format{name, ElementType::kFloat32, {}};
  format.quant.o_proj = encoding;
  return format;
}

Format fp8(const std::string& name, WeightGranularity granularity) {
  Format format = quantised(name, QuantEncoding::kFloat8E4M3FN);
  format.quant.weight_granularity = granularity;
  return format;
}

Format gptq(const std::string& name, std::int64_t bits, std::int64_t group_size) {
  Format format = quantised(name, QuantEncoding::kGptq);
  format.quant.bits = bits;
  format.quant.group_size = group_size;
  return format;
}

/// Random codes and scales. Bytes and their pairs read as float16 are ordinary numbers, so that no
/// time goes to subnormals or NaN; the decoders do not branch on codes.
Tensor random_tensor(const attn::TensorSpec& spec) {
  const ElementType type = spec.types.front();
  Tensor tensor(type, spec.shape);
  const attn::RandomStream random(1, spec.name);
  for (std::int64_t i = 0; i < tensor.size(); ++i) {
    const std::uint64_t bits = random.bits(static_cast<std::uint64_t>(i));
    switch (type) {
      case ElementType::kInt32:
        tensor.set_code(i, bits & 0xffffffffu);
        break;
      case ElementType::kUInt8:
      case ElementType::kFloat8E4M3FN:
        tensor.set_code(i, 0x20 + (bits & 0x3f));
        break;
      default:
        tensor.set_value(i, 0.5 + 0x1p-64 * static_cast<double>(bits));
    }
  }
  return tensor;
}

/// A layer whose o_proj has kRows rows and kColumns columns in this format.
Case weight_case(const Format& format) {
  Case c;
  AttentionConfig& config = c.config;
  config.num_attention_heads = config.num_key_value_heads = kColumns / 128;
  config.head_dim = config.head_dim_v = 128;
  config.hidden_size = kRows;
  config.dtype = format.dtype;
  if (format.quant.o_proj != QuantEncoding::kNone) config.quant = format.quant;
  for (const attn::TensorSpec& spec : expected_weights(config)) {
    if (!spec.name.starts_with("o_proj.")) continue;
    c.weights[spec.name] = random_tensor(spec);
  }
  if (const auto g_idx = c.weights.find("o_proj.g_idx"); g_idx != c.weights.end()) {
    for (std::int64_t k = 0; k < kColumns; ++k) {
      const std::int64_t group = k / config.quant->group_size;
      g_idx->second.set_code(k, static_cast<std::uint64_t>(group));
    }
  }
  return c;
}

void count_weights(benchmark::State& state) {
  state.counters["weights"] =
      benchmark::Counter(static_cast<double>(state.iterations()) * kRows * kColumns,
                         benchmark::Counter::kIsRate, benchmark::Counter::kIs1000);
}

void decode(benchmark::State& state, const Format& format) {
  const Case c = weight_case(format);
  const auto weight = cpu::open_weight(c, cpu::Matrix::kO);
  cpu::Rows rows(kPanel, kColumns);
  for (auto _ : state) {
    for (std::int64_t first = 0; first < kRows; first += kPanel) {
      weight->decode(first, rows);
      benchmark::DoNotOptimize(rows.data.data());
      benchmark::ClobberMemory();
    }
  }
  count_weights(state);
}

void project_one_row(benchmark::State& state, const Format& format) {
  const Case c = weight_case(format);
  const auto weight = cpu::open_weight(c, cpu::Matrix::kO);
  cpu::Rows x(1, kColumns);
  for (float& value : x.data) value = 1.0f;
  cpu::Projection projection;
  projection.weight = weight.get();
  projection.weight_width = kColumns;
  projection.rows = {0, kRows};
  std::vector<float> y(kRows);
  for (auto _ : state) {
    cpu::project(x, projection, /*threads=*/1, y.data());
    benchmark::DoNotOptimize(y.data());
    benchmark::ClobberMemory();
  }
  count_weights(state);
}

}  // namespace

int main(int argc, char** argv) {
  attn::cli::keep_freed_memory();
  const std::vector<Format> formats{
      dense(ElementType::kFloat32),
      dense(ElementType::kBFloat16),
      dense(ElementType::kFloat16),
      fp8("float8_tensor", WeightGranularity::kTensor),
      fp8("float8_rowwise", WeightGranularity::kRowwise),
      fp8("float8_block128", WeightGranularity::kBlock),
      quantised("nvfp4", QuantEncoding::kNvfp4),
      quantised("mxfp4", QuantEncoding::kMxfp4),
      quantised("mxfp8", QuantEncoding::kMxfp8),
      quantised("q4_0", QuantEncoding::kQ4_0),
      quantised("q8_0", QuantEncoding::kQ8_0),
      quantised("q4_k", QuantEncoding::kQ4_K),
      quantised("q5_k", QuantEncoding::kQ5_K),
      quantised("q6_k", QuantEncoding::kQ6_K),
      gptq("gptq_4bit_g128", 4, 128),
      gptq("gptq_4bit_g32", 4, 32),
      gptq("gptq_8bit_g128", 8, 128),
  };
  for (const Format& format : formats) {
    benchmark::RegisterBenchmark(("decode/" + format.name).c_str(), decode, format);
  }
  for (const Format& format : formats) {
    benchmark::RegisterBenchmark(("project_one_row/" + format.name).c_str(), project_one_row,
                                 format);
  }
  benchmark::AddCustomContext("attn_build_type", ATTN_BUILD_TYPE);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
