#include "harness/backends/cpu/weight_rows.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <utility>
#include <vector>

#include "harness/backends/cpu/clip.h"
#include "harness/backends/cpu/fault_switch.h"
#include "harness/backends/cpu/gguf.h"
#include "harness/backends/cpu/gptq.h"
#include "harness/backends/cpu/small_floats.h"

namespace attn::harness::cpu {
namespace {

const Tensor& weight_of(const Case& c, Matrix matrix, const char* suffix) {
  return c.weights.at(name_of(matrix) + "." + suffix);
}

float scalar(const Tensor& tensor) { return *tensor.as<float>(); }

const std::uint8_t* codes_of_row(const Tensor& matrix, std::int64_t row) {
  return matrix.as<std::uint8_t>() + row * matrix.dim(1);
}

/// A weight of a plain float type.
class DenseRows final : public WeightRows {
 public:
  DenseRows(const Tensor& matrix, std::int64_t first_row, std::optional<double> clip)
      : matrix_(matrix), first_row_(first_row), clip_(clip) {}

  void decode(std::int64_t first, Rows& rows) const override {
    unpack_rows(matrix_, first_row_ + first, rows);
    if (!clip_ || ATTN_FAULT(clip_qkv_ignored)) return;
    for (std::int64_t i = 0; i < rows.count; ++i) clip(rows.row(i), rows.width, *clip_);
  }

 private:
  const Tensor& matrix_;  // [>= first_row_ + out, in]
  std::int64_t first_row_;
  std::optional<double> clip_;
};

/// Where a block of zeros was skipped, the buffer holds what was decoded before it.
void skip_zeros([[maybe_unused]] float* block, [[maybe_unused]] std::int64_t columns,
                [[maybe_unused]] bool is_first) {
  [[maybe_unused]] const auto is_zero = [&] {
    return std::all_of(block, block + columns, [](float value) { return value == 0.0f; });
  };
  if (ATTN_FAULT(zero_block_kept, !is_first && is_zero())) {
    std::copy(block - columns, block, block);
  }
}

class GgufRows final : public WeightRows {
 public:
  GgufRows(const Tensor& matrix, const GgufFormat& format) : matrix_(matrix), format_(format) {}

  void decode(std::int64_t first, Rows& rows) const override {
    for (std::int64_t i = 0; i < rows.count; ++i) {
      const std::byte* block = matrix_.data() + (first + i) * matrix_.dim(1);
      float* values = rows.row(i);
      for (std::int64_t k = 0; k < rows.width; k += format_.columns) {
        format_.decode_block(block, values + k);
        skip_zeros(values + k, format_.columns, k == 0);
        block += format_.bytes;
      }
    }
  }

 private:
  const Tensor& matrix_;  // [out, bytes of a row] uint8
  const GgufFormat& format_;
};

class GptqRows final : public WeightRows {
 public:
  explicit GptqRows(const GptqWeight& weight) : weight_(weight) {}
  void decode(std::int64_t first, Rows& rows) const override { weight_.decode(first, rows); }

 private:
  GptqWeight weight_;
};

/// Scales of blocks of n rows and k columns, [ceil(out / n), ceil(in / k)] of them.
struct BlockScales {
  std::vector<float> values;
  std::int64_t n;
  std::int64_t k;
};

/// fp8 codes: what a code stands for comes from a table.
class Fp8Rows final : public WeightRows {
 public:
  Fp8Rows(const Tensor& codes, const std::array<float, 256>& values, BlockScales scales)
      : codes_(codes), values_(values), scales_(std::move(scales)) {}

  void decode(std::int64_t first, Rows& rows) const override {
    const std::int64_t blocks = (rows.width + scales_.k - 1) / scales_.k;
    for (std::int64_t i = 0; i < rows.count; ++i) {
      const std::uint8_t* const codes = codes_of_row(codes_, first + i);
      const float* scales = scales_.values.data() + (first + i) / scales_.n * blocks;
      if (ATTN_FAULT(fp8_scale_of_first_rows, first + i >= scales_.n))
        scales = scales_.values.data();
      float* const row = rows.row(i);
      for (std::int64_t b = 0; b < blocks; ++b) {
        float scale = scales[b];
        if (ATTN_FAULT(fp8_tail_block_scale, b > 0 && (b + 1) * scales_.k > rows.width))
          scale = scales[b - 1];
        const std::int64_t end = std::min(rows.width, (b + 1) * scales_.k);
        for (std::int64_t k = b * scales_.k; k < end; ++k) row[k] = values_[codes[k]] * scale;
      }
    }
  }

 private:
  const Tensor& codes_;  // [out, in]
  std::array<float, 256> values_;
  BlockScales scales_;
};

/// e2m1 codes, the even column in the low nibble; `block` columns share a scale.
class Fp4Rows final : public WeightRows {
 public:
  Fp4Rows(const Tensor& codes, const Tensor& scale, std::int64_t block, float scale_2)
      : codes_(codes), scale_(scale), block_(block), scale_2_(scale_2) {}

  void decode(std::int64_t first, Rows& rows) const override {
    const std::int64_t blocks = rows.width / block_;
    std::vector<float> scales(static_cast<std::size_t>(blocks));
    for (std::int64_t i = 0; i < rows.count; ++i) {
      unpack(scale_.type(), scale_.data() + (first + i) * blocks, blocks, scales.data());
      const std::uint8_t* const codes = codes_of_row(codes_, first + i);
      float* const row = rows.row(i);
      for (std::int64_t b = 0; b < blocks; ++b) {
        // Scales have no sign; a code times a scale is exact.
        float scale = std::abs(scales[static_cast<std::size_t>(b)]);
        if (ATTN_FAULT(fp4_scale_of_previous_block, b % 4 == 3))
          scale = std::abs(scales[static_cast<std::size_t>(b - 1)]);
        for (std::int64_t k = b * block_; k < (b + 1) * block_; k += 2) {
          std::uint8_t pair = codes[k / 2];
          if (ATTN_FAULT(fp4_nibbles_swapped))
            pair = static_cast<std::uint8_t>(pair << 4 | pair >> 4);
          row[k] = kE2M1Values[pair & 15u] * scale * scale_2_;
          row[k + 1] = kE2M1Values[pair >> 4] * scale * scale_2_;
        }
      }
    }
  }

 private:
  const Tensor& codes_;  // [out, in / 2] uint8
  const Tensor& scale_;  // [out, in / block] e4m3fn or e8m0
  std::int64_t block_;
  float scale_2_;
};

std::unique_ptr<WeightRows> open_dense(const Case& c, Matrix matrix, std::optional<double> bound) {
  const AttentionConfig& config = c.config;
  if (matrix == Matrix::kO || !config.stacked_qkv) {
    return std::make_unique<DenseRows>(weight_of(c, matrix, "weight"), 0, bound);
  }
  std::int64_t first = 0;
  if (matrix != Matrix::kQ) first += config.q_width();
  if (matrix == Matrix::kV) first += config.k_width();
  if (ATTN_FAULT(stacked_k_and_v_swapped, matrix != Matrix::kQ))
    first = 2 * config.q_width() + config.k_width() - first;
  return std::make_unique<DenseRows>(c.weights.at("qkv_proj.weight"), first, bound);
}

/// The values that the codes of a per-tensor fp8 weight stand for when q, k and v share the scale
/// `largest`: each is requantised from its own.
std::array<float, 256> merged_values(const std::array<float, 256>& values, double own,
                                     double largest) {
  std::array<float, 256> merged{};
  if (ATTN_FAULT(merged_codes_not_requantised, own != largest)) return values;
  for (std::size_t code = 0; code < merged.size(); ++code) {
    const double requantised = static_cast<double>(values[code]) * own / largest;
    merged[code] = kE4M3FNValues[encode(kE4M3FN, requantised)];
  }
  return merged;
}

std::unique_ptr<WeightRows> open_fp8(const Case& c, Matrix matrix, std::optional<double> bound) {
  const QuantConfig& quant = *c.config.quant;
  const Tensor& codes = weight_of(c, matrix, "weight");
  const Tensor& scale = weight_of(c, matrix, "weight_scale");
  std::array<float, 256> values = kE4M3FNValues;
  // clip_qkv bounds what the codes stand for, before any scale.
  if (bound && ATTN_FAULT(clip_of_scaled_codes, scale.size() == 1)) *bound /= scalar(scale);
  if (bound) clip(values.data(), 256, *bound);

  BlockScales scales{unpack_vector(scale), codes.dim(0), codes.dim(1)};
  if (quant.weight_granularity == WeightGranularity::kRowwise) scales.n = 1;
  if (quant.weight_granularity == WeightGranularity::kBlock) {
    scales.n = quant.block_n;
    scales.k = quant.block_k;
  }
  const bool is_merged = quant.activation == ActivationQuant::kStatic && matrix != Matrix::kO;
  if (is_merged) {
    const float largest = largest_qkv_scale(c, "weight_scale");
    values = merged_values(values, scalar(scale), largest);
    scales.values = {largest};
  }
  return std::make_unique<Fp8Rows>(codes, values, std::move(scales));
}

std::unique_ptr<WeightRows> open_fp4(const Case& c, Matrix matrix, std::int64_t block) {
  // Each projection is decoded with its own second scale.
  const bool has_scale_2 = encoding_of(c.config, matrix) == QuantEncoding::kNvfp4 &&
                           !ATTN_FAULT(nvfp4_second_scale_dropped);
  if (ATTN_FAULT(nvfp4_second_scale_of_k, has_scale_2 && matrix == Matrix::kV)) {
    return std::make_unique<Fp4Rows>(weight_of(c, matrix, "weight"),
                                     weight_of(c, matrix, "weight_scale"), block,
                                     scalar(weight_of(c, Matrix::kK, "weight_scale_2")));
  }
  return std::make_unique<Fp4Rows>(
      weight_of(c, matrix, "weight"), weight_of(c, matrix, "weight_scale"), block,
      has_scale_2 ? scalar(weight_of(c, matrix, "weight_scale_2")) : 1.0f);
}

std::unique_ptr<WeightRows> open_mxfp8(const Case& c, Matrix matrix) {
  const Tensor& codes = weight_of(c, matrix, "weight");
  return std::make_unique<Fp8Rows>(
      codes, kE4M3FNValues,
      BlockScales{unpack_vector(weight_of(c, matrix, "weight_scale")), 1, kMxBlock});
}

}  // namespace

std::string name_of(Matrix matrix) {
  constexpr std::array kNames{"q_proj", "k_proj", "v_proj", "o_proj"};
  return kNames.at(static_cast<std::size_t>(matrix));
}

QuantEncoding encoding_of(const AttentionConfig& config, Matrix matrix) {
  if (!config.quant) return QuantEncoding::kNone;
  const QuantConfig& quant = *config.quant;
  const std::array encodings{quant.q_proj, quant.k_proj, quant.v_proj, quant.o_proj};
  return encodings.at(static_cast<std::size_t>(matrix));
}

float largest_qkv_scale(const Case& c, const std::string& suffix) {
  float largest =
      std::max(scalar(c.weights.at("k_proj." + suffix)), scalar(c.weights.at("v_proj." + suffix)));
  if (ATTN_FAULT(merged_scale_of_k)) return scalar(c.weights.at("k_proj." + suffix));
  const auto q = c.weights.find("q_proj." + suffix);
  if (q != c.weights.end()) largest = std::max(largest, scalar(q->second));
  return largest;
}

std::unique_ptr<WeightRows> open_weight(const Case& c, Matrix matrix) {
  std::optional<double> bound = matrix == Matrix::kO ? std::nullopt : c.config.weight_clip();
  if (ATTN_FAULT(clip_qkv_without_v, matrix == Matrix::kV && bound)) bound.reset();
  if (ATTN_FAULT(clip_qkv_of_output_too, matrix == Matrix::kO && c.config.weight_clip()))
    bound = c.config.weight_clip();
  const QuantEncoding encoding = encoding_of(c.config, matrix);
  switch (encoding) {
    case QuantEncoding::kNone:
      return open_dense(c, matrix, bound);
    case QuantEncoding::kFloat8E4M3FN:
      return open_fp8(c, matrix, bound);
    case QuantEncoding::kNvfp4:
      return open_fp4(c, matrix, kNvBlock);
    case QuantEncoding::kMxfp4:
      return open_fp4(c, matrix, kMxBlock);
    case QuantEncoding::kMxfp8:
      return open_mxfp8(c, matrix);
    case QuantEncoding::kGptq:
      return std::make_unique<GptqRows>(
          GptqWeight{c.config.quant->bits, &weight_of(c, matrix, "qweight"),
                     &weight_of(c, matrix, "scales"), &weight_of(c, matrix, "g_idx")});
    default:
      return std::make_unique<GgufRows>(weight_of(c, matrix, "weight"), gguf_format(encoding));
  }
}

}  // namespace attn::harness::cpu
