#include "golden/second_weights.h"

#include <algorithm>
#include <cmath>

#include "golden/second_gguf.h"

namespace attn::golden {
namespace {

constexpr ElementType kE4M3 = ElementType::kFloat8E4M3FN;

const Tensor& weight(const Case& c, const std::string& projection, const char* suffix) {
  return c.weights.at(projection + "." + suffix);
}

/// Rows of the projection in "qkv_proj.weight": Q, then K, then V.
Matrix cut_from_stacked(const Case& c, const std::string& projection) {
  const AttentionConfig& config = c.config;
  const std::int64_t q = config.num_attention_heads * config.head_dim;
  const std::int64_t kv = config.num_key_value_heads * config.head_dim;
  const std::int64_t first = projection == "q_proj" ? 0 : projection == "k_proj" ? q : q + kv;
  const Tensor& stacked = c.weights.at("qkv_proj.weight");
  const Matrix all = decoded(stacked, stacked.dim(0), stacked.dim(1));
  Matrix out(projection == "q_proj" ? q : kv, all.cols);
  for (std::int64_t n = 0; n < out.rows; ++n) {
    for (std::int64_t k = 0; k < out.cols; ++k) out.at(n, k) = all.at(first + n, k);
  }
  return out;
}

/// The scale of element (n, k): a scalar, or a table whose entries cover `height` x `width`
/// elements each.
Real scale_at(const Tensor& scale, std::int64_t n, std::int64_t k, std::int64_t height,
              std::int64_t width) {
  if (scale.shape().empty()) return scale.value(0);
  return scale.value(n / height * scale.dim(1) + k / width);
}

/// e4m3 codes times their scale. With static activations q, k and v share the largest scale, and
/// their codes are rounded again to fit it.
Matrix fp8(const Case& c, const std::string& projection, bool clipped) {
  const QuantConfig& quant = *c.config.quant;
  const Tensor& stored = weight(c, projection, "weight");
  const Tensor& scale = weight(c, projection, "weight_scale");
  const bool blocks = quant.weight_granularity == WeightGranularity::kBlock;
  const std::int64_t height = blocks ? quant.block_n : 1;
  Matrix out = decoded(stored, stored.dim(0), stored.dim(1));
  const std::int64_t width = blocks ? quant.block_k : out.cols;
  if (clipped) clip(out, *c.config.clip_qkv);  // the codes, before any scale
  const bool merged = quant.activation == ActivationQuant::kStatic && projection != "o_proj";
  const auto largest = static_cast<double>(shared_scale(c, projection, "weight_scale"));
  for (std::int64_t n = 0; n < out.rows; ++n) {
    for (std::int64_t k = 0; k < out.cols; ++k) {
      const auto value = static_cast<double>(out.at(n, k) * scale_at(scale, n, k, height, width));
      out.at(n, k) = merged ? static_cast<Real>(round_to(kE4M3, value / largest)) * largest
                            : out.at(n, k) * scale_at(scale, n, k, height, width);
    }
  }
  return out;
}

/// Two e2m1 codes a byte, the even column in the low nibble.
Matrix nibbles(const Tensor& stored) {
  Matrix out(stored.dim(0), 2 * stored.dim(1));
  for (std::int64_t i = 0; i < out.rows * out.cols; ++i) {
    const std::uint64_t byte = stored.code(i / 2);
    out.data[static_cast<std::size_t>(i)] =
        decode(ElementType::kFloat4E2M1FN, i % 2 == 0 ? byte & 15 : byte >> 4);
  }
  return out;
}

/// One scale for every `width` columns of a row.
void scale_blocks(Matrix& codes, const Tensor& scale, std::int64_t width) {
  for (std::int64_t n = 0; n < codes.rows; ++n) {
    for (std::int64_t k = 0; k < codes.cols; ++k) {
      codes.at(n, k) *= std::fabs(scale_at(scale, n, k, 1, width));
    }
  }
}

Matrix nvfp4(const Case& c, const std::string& projection) {
  Matrix out = nibbles(weight(c, projection, "weight"));
  scale_blocks(out, weight(c, projection, "weight_scale"), 16);
  const Real global = weight(c, projection, "weight_scale_2").value(0);
  for (Real& v : out.data) v *= global;
  return out;
}

Matrix mx(const Case& c, const std::string& projection, bool four_bits) {
  const Tensor& stored = weight(c, projection, "weight");
  Matrix out = four_bits ? nibbles(stored) : decoded(stored, stored.dim(0), stored.dim(1));
  scale_blocks(out, weight(c, projection, "weight_scale"), 32);
  return out;
}

/// (code - 2^(bits-1)) * scale of the column's group; codes fill words along the input, lowest bits
/// first.
Matrix gptq(const Case& c, const std::string& projection) {
  const std::int64_t bits = c.config.quant->bits;
  const std::int64_t per_word = 32 / bits;
  const Tensor& words = weight(c, projection, "qweight");
  const Tensor& scales = weight(c, projection, "scales");
  const Tensor& group = weight(c, projection, "g_idx");
  const std::int64_t rows = scales.dim(1);
  Matrix out(rows, group.size());
  for (std::int64_t n = 0; n < rows; ++n) {
    for (std::int64_t k = 0; k < out.cols; ++k) {
      const std::uint64_t word = words.code(k / per_word * rows + n);
      const std::uint64_t code = (word >> (k % per_word * bits)) % (std::uint64_t{1} << bits);
      const auto g = static_cast<std::int64_t>(group.code(k));
      out.at(n, k) = (static_cast<Real>(code) - std::ldexp(1.0L, static_cast<int>(bits - 1))) *
                     scales.value(g * rows + n);
    }
  }
  return out;
}

}  // namespace

QuantEncoding second_encoding(const AttentionConfig& config, const std::string& projection) {
  if (!config.quant) return QuantEncoding::kNone;
  if (projection == "q_proj") return config.quant->q_proj;
  if (projection == "k_proj") return config.quant->k_proj;
  return projection == "v_proj" ? config.quant->v_proj : config.quant->o_proj;
}

Real shared_scale(const Case& c, const std::string& projection, const std::string& suffix) {
  if (projection == "o_proj") return c.weights.at(projection + "." + suffix).value(0);
  Real largest = 0;
  for (const char* one : {"q_proj.", "k_proj.", "v_proj."}) {
    // A case that only fills the cache may come without q_proj.
    const auto found = c.weights.find(one + suffix);
    if (found != c.weights.end()) {
      largest = std::max<Real>(largest, found->second.value(0));
    }
  }
  return largest;
}

Matrix second_weight(const Case& c, const std::string& projection) {
  const bool clipped = c.config.clip_qkv.value_or(0) > 0 && projection != "o_proj";
  switch (const QuantEncoding encoding = second_encoding(c.config, projection)) {
    case QuantEncoding::kNone: {
      const bool stacked = c.config.stacked_qkv && projection != "o_proj";
      const Tensor* own = stacked ? nullptr : &weight(c, projection, "weight");
      Matrix out =
          stacked ? cut_from_stacked(c, projection) : decoded(*own, own->dim(0), own->dim(1));
      if (clipped) clip(out, *c.config.clip_qkv);
      return out;
    }
    case QuantEncoding::kFloat8E4M3FN:
      return fp8(c, projection, clipped);
    case QuantEncoding::kNvfp4:
      return nvfp4(c, projection);
    case QuantEncoding::kMxfp4:
    case QuantEncoding::kMxfp8:
      return mx(c, projection, encoding == QuantEncoding::kMxfp4);
    case QuantEncoding::kGptq:
      return gptq(c, projection);
    default:
      return second_gguf(weight(c, projection, "weight"), encoding);
  }
}

}  // namespace attn::golden
