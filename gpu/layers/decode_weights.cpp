#include "gpu/layers/decode_weights.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <string>

#include "gpu/faults/fault_switch.h"
#include "gpu/layers/gguf_block.h"
#include "reference/core/error.h"

namespace attn::gpu {
namespace {

constexpr std::array kNames{"q_proj", "k_proj", "v_proj", "o_proj"};

double e4m3(std::uint64_t code) { return decode(ElementType::kFloat8E4M3FN, code); }

double clamp_to(double value, std::optional<double> bound) {
  if (!bound) return value;
  return value > *bound ? *bound : value < -*bound ? -*bound : value;
}

std::vector<float> decode_dense(const AttentionConfig& config, const LayerWeights& weights,
                                Matrix matrix, MatrixSize size, std::optional<double> bound) {
  const bool stacked = config.stacked_qkv && matrix != Matrix::kO;
  const Tensor& tensor =
      stacked ? weights.at("qkv_proj.weight") : projection_tensor(weights, matrix, "weight");
  std::int64_t first_row = 0;
  if (stacked && matrix != Matrix::kQ) first_row += config.q_width();
  if (stacked && matrix == Matrix::kV) first_row += config.k_width();
  std::vector<double> values(static_cast<std::size_t>(size.out * size.in));
  tensor.values(first_row * size.in, values);
  std::vector<float> w(values.size());
  std::ranges::transform(values, w.begin(),
                         [&](double v) { return static_cast<float>(clamp_to(v, bound)); });
  return w;
}

/// Value of a code times the scale of its block of `rows` rows and `columns` columns.
struct BlockScale {
  const Tensor& scale;
  std::int64_t rows = 1;
  std::int64_t columns = 1;
  std::int64_t per_row = 1;  ///< blocks beside each other

  double at(std::int64_t n, std::int64_t k) const {
    return scale.value(n / rows * per_row + k / columns);
  }
};

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

std::vector<float> decode_fp8(const AttentionConfig& config, const LayerWeights& weights,
                              Matrix matrix, MatrixSize size, std::optional<double> bound) {
  const QuantConfig& quant = *config.quant;
  const Tensor& codes = projection_tensor(weights, matrix, "weight");
  BlockScale scale{projection_tensor(weights, matrix, "weight_scale"), size.out, size.in, 1};
  if (quant.weight_granularity == WeightGranularity::kRowwise) scale.rows = 1;
  if (quant.weight_granularity == WeightGranularity::kBlock) {
    scale.rows = quant.block_n;
    scale.columns = quant.block_k;
    scale.per_row = ceil_div(size.in, quant.block_k);
  }
  // What a code stands for before its scale: clip_qkv bounds that, and a merged scale requantises
  // it.
  std::array<double, 256> values{};
  for (std::size_t code = 0; code < values.size(); ++code)
    values[code] = clamp_to(e4m3(code), bound);
  const bool merged = quant.activation == ActivationQuant::kStatic && matrix != Matrix::kO;
  const double largest = merged ? largest_of_qkv(weights, "weight_scale") : 0.0;
  if (merged) {
    const double own = scale.at(0, 0);
    for (double& v : values) {
      if (ATTN_FAULT(merged_codes_not_requantised, own != largest)) continue;
      v = round_to(ElementType::kFloat8E4M3FN, v * own / largest);
    }
  }
  std::vector<float> w(static_cast<std::size_t>(size.out * size.in));
  for (std::int64_t i = 0; i < size.out * size.in; ++i) {
    const double s = merged ? largest : scale.at(i / size.in, i % size.in);
    w[static_cast<std::size_t>(i)] =
        static_cast<float>(values[static_cast<std::size_t>(codes.code(i))] * s);
  }
  return w;
}

/// nvfp4, mxfp4: two codes a byte, the even column in the low nibble. mxfp8: a code a byte.
std::vector<float> decode_microscaled(const LayerWeights& weights, Matrix matrix, MatrixSize size,
                                      QuantEncoding encoding) {
  const Tensor& codes = projection_tensor(weights, matrix, "weight");
  const std::int64_t block = encoding == QuantEncoding::kNvfp4 ? 16 : 32;
  const BlockScale scale{projection_tensor(weights, matrix, "weight_scale"), 1, block,
                         size.in / block};
  const double whole = encoding == QuantEncoding::kNvfp4 && !ATTN_FAULT(nvfp4_second_scale_dropped)
                           ? projection_tensor(weights, matrix, "weight_scale_2").value(0)
                           : 1.0;
  std::vector<float> w(static_cast<std::size_t>(size.out * size.in));
  for (std::int64_t i = 0; i < size.out * size.in; ++i) {
    double value = 0.0;
    if (encoding == QuantEncoding::kMxfp8) {
      value = e4m3(codes.code(i));
    } else {
      const std::uint64_t pair = codes.code(i / 2);
      const bool low = (i % 2 == 0) != ATTN_FAULT(fp4_nibbles_swapped);
      value = decode(ElementType::kFloat4E2M1FN, low ? pair & 15U : pair >> 4);
    }
    // Scales have no sign.
    const double s = std::abs(scale.at(i / size.in, i % size.in));
    w[static_cast<std::size_t>(i)] = static_cast<float>(value * s * whole);
  }
  return w;
}

/// As the layer in config.dtype rounds them: scales are cut to bfloat16 where that is the type, and
/// weights rounded to it.
std::vector<float> decode_gptq(const AttentionConfig& config, const LayerWeights& weights,
                               Matrix matrix, MatrixSize size) {
  const QuantConfig& quant = *config.quant;
  const Tensor& words = projection_tensor(weights, matrix, "qweight");  // [in * bits / 32, out]
  const Tensor& scales = projection_tensor(weights, matrix, "scales");  // [groups, out]
  const Tensor& group = projection_tensor(weights, matrix, "g_idx");    // [in]
  const std::int64_t per_word = 32 / quant.bits;
  const std::uint64_t mask = (std::uint64_t{1} << quant.bits) - 1;
  auto zero = static_cast<double>(std::uint64_t{1} << (quant.bits - 1));
  if (ATTN_FAULT(gptq_zero_one_less)) zero -= 1.0;
  if (ATTN_FAULT(gptq_zero_of_4_bits, quant.bits == 8)) zero = 8.0;
  std::vector<float> w(static_cast<std::size_t>(size.out * size.in));
  for (std::int64_t k = 0; k < size.in; ++k) {
    auto g = static_cast<std::int64_t>(group.value(k));
    if (ATTN_FAULT(gptq_group_order_ignored, quant.group_size > 0 && g != k / quant.group_size)) {
      g = k / quant.group_size;
    }
    for (std::int64_t n = 0; n < size.out; ++n) {
      const std::uint64_t word = words.code(k / per_word * size.out + n);
      const std::uint64_t code = word >> (k % per_word * quant.bits) & mask;
      double scale = scales.value(g * size.out + n);
      if (config.dtype == ElementType::kBFloat16)
        scale = static_cast<double>(truncate_to_bfloat16(scale));
      const double value = (static_cast<double>(code) - zero) * scale;
      w[static_cast<std::size_t>(n * size.in + k)] =
          static_cast<float>(round_to(config.dtype, value));
    }
  }
  return w;
}

double q4_0_value(const GgufBlockReader& b, int i) {
  const int byte = b.u8(2 + i % 16);
  return ((i < 16 ? byte & 15 : byte >> 4) - 8) * b.half(0);
}

double q8_0_value(const GgufBlockReader& b, int i) { return b.i8(2 + i) * b.half(0); }

/// Two groups of 32 share 32 bytes of nibbles; q5_k's fifth bits come before them.
double k_quant_value(const GgufBlockReader& b, int i, int nibbles, bool has_fifth) {
  const int j = i / 32;
  const int byte = b.u8(nibbles + i / 64 * 32 + i % 32);
  int code = j % 2 == 0 ? byte & 15 : byte >> 4;
  if (has_fifth) code |= (b.u8(16 + i % 32) >> j & 1) << 4;
  return b.half(0) * b.group_scale(j) * code - b.half(2) * b.group_min(j);
}

double q6_k_value(const GgufBlockReader& b, int i) {
  const int half = i / 128;
  const int quarter = i % 128 / 32;
  const int l = i % 32;
  const int low = b.u8(64 * half + l + 32 * (quarter % 2));
  const int high = b.u8(128 + 32 * half + l) >> 2 * quarter & 3;
  const int code = (quarter < 2 ? low & 15 : low >> 4) | high << 4;
  const int scale = ATTN_FAULT(q6_k_scale_of_32, l >= 16) ? 0 : l / 16;
  return b.half(208) * b.i8(192 + 8 * half + 2 * quarter + scale) * (code - 32);
}

double gguf_value(QuantEncoding encoding, const GgufBlockReader& block, int i) {
  switch (encoding) {
    case QuantEncoding::kQ4_0:
      return q4_0_value(block, i);
    case QuantEncoding::kQ8_0:
      return q8_0_value(block, i);
    case QuantEncoding::kQ4_K:
      return k_quant_value(block, i, 16, false);
    case QuantEncoding::kQ5_K:
      return k_quant_value(block, i, 48, true);
    default:
      return q6_k_value(block, i);
  }
}

std::vector<float> decode_gguf(const LayerWeights& weights, Matrix matrix, MatrixSize size,
                               QuantEncoding encoding) {
  const Tensor& blocks = projection_tensor(weights, matrix, "weight");  // [out, bytes of a row]
  const bool small = encoding == QuantEncoding::kQ4_0 || encoding == QuantEncoding::kQ8_0;
  const std::int64_t elements = small ? 32 : 256;
  const std::int64_t block_bytes = blocks.dim(1) / (size.in / elements);
  std::vector<float> w(static_cast<std::size_t>(size.out * size.in));
  for (std::int64_t i = 0; i < size.out * size.in; ++i) {
    const GgufBlockReader block(blocks.data() + i / elements * block_bytes);
    w[static_cast<std::size_t>(i)] =
        static_cast<float>(gguf_value(encoding, block, static_cast<int>(i % elements)));
  }
  return w;
}

}  // namespace

float truncate_to_bfloat16(double x) {
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(static_cast<float>(x)) & 0xffff0000U);
}

const Tensor& projection_tensor(const LayerWeights& weights, Matrix matrix, const char* suffix) {
  return weights.at(std::string(kNames.at(static_cast<std::size_t>(matrix))) + "." + suffix);
}

MatrixSize matrix_size(const AttentionConfig& c, Matrix matrix) {
  switch (matrix) {
    case Matrix::kQ:
      return {c.q_width(), c.hidden_size};
    case Matrix::kK:
      return {c.k_width(), c.hidden_size};
    case Matrix::kV:
      return {c.v_width(), c.hidden_size};
    case Matrix::kO:
      break;
  }
  return {c.hidden_size, c.attn_width()};
}

double largest_of_qkv(const LayerWeights& weights, const char* suffix) {
  double largest = 0.0;
  for (const Matrix matrix : {Matrix::kQ, Matrix::kK, Matrix::kV}) {
    const auto it =
        weights.find(std::string(kNames.at(static_cast<std::size_t>(matrix))) + "." + suffix);
    if (it != weights.end()) largest = std::max(largest, it->second.value(0));
  }
  return largest;
}

QuantEncoding encoding_of(const AttentionConfig& config, Matrix matrix) {
  if (!config.quant) return QuantEncoding::kNone;
  const std::array encodings{config.quant->q_proj, config.quant->k_proj, config.quant->v_proj,
                             config.quant->o_proj};
  return encodings.at(static_cast<std::size_t>(matrix));
}

std::vector<float> decode_weight(const AttentionConfig& config, const LayerWeights& weights,
                                 Matrix matrix) {
  const MatrixSize size = matrix_size(config, matrix);
  const std::optional<double> bound = matrix == Matrix::kO ? std::nullopt : config.weight_clip();
  const QuantEncoding encoding = encoding_of(config, matrix);
  switch (encoding) {
    case QuantEncoding::kNone:
      return decode_dense(config, weights, matrix, size, bound);
    case QuantEncoding::kFloat8E4M3FN:
      return decode_fp8(config, weights, matrix, size, bound);
    case QuantEncoding::kNvfp4:
    case QuantEncoding::kMxfp4:
    case QuantEncoding::kMxfp8:
      return decode_microscaled(weights, matrix, size, encoding);
    case QuantEncoding::kGptq:
      return decode_gptq(config, weights, matrix, size);
    default:
      return decode_gguf(weights, matrix, size, encoding);
  }
}

float static_input_scale(const AttentionConfig& config, const LayerWeights& weights,
                         Matrix matrix) {
  if (!config.quant) return 0.0f;
  const bool fp8 = config.quant->activation == ActivationQuant::kStatic;
  const bool nvfp4 = config.quant->activation == ActivationQuant::kBlock &&
                     encoding_of(config, matrix) == QuantEncoding::kNvfp4;
  if (!fp8 && !nvfp4) return 0.0f;
  if (matrix != Matrix::kO) return static_cast<float>(largest_of_qkv(weights, "input_scale"));
  return static_cast<float>(projection_tensor(weights, matrix, "input_scale").value(0));
}

}  // namespace attn::gpu
