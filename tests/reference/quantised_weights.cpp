#include "tests/reference/quantised_weights.h"

#include <cmath>
#include <string>
#include <vector>

#include "reference/core/philox.h"
#include "reference/core/quant_internal.h"

namespace attn::reference::test {
namespace {

/// Any bits in every element.
Tensor random_bits(const TensorSpec& spec) {
  Tensor t(spec.types.front(), spec.shape);
  const RandomStream random(7, spec.name);
  for (std::int64_t i = 0; i < t.size(); ++i) {
    t.set_code(i, random.bits(static_cast<std::uint64_t>(i)));
  }
  return t;
}

Tensor normal_values(const TensorSpec& spec, double scale) {
  std::vector<double> values(static_cast<std::size_t>(num_elements(spec.shape)));
  RandomStream(7, spec.name).normals(0, values);
  for (double& v : values) {
    v *= scale;
  }
  return Tensor::from_values(spec.types.front(), spec.shape, values);
}

/// Between 0.01 and 0.03; powers of two, 2^-9 .. 2^-3 or so, where only those are held.
Tensor scales(const TensorSpec& spec) {
  const ElementType type = spec.types.front();
  Tensor t(type, spec.shape);
  const RandomStream random(7, spec.name);
  for (std::int64_t i = 0; i < t.size(); ++i) {
    const double z = random.normal(static_cast<std::uint64_t>(i));
    t.set_value(i, type == ElementType::kFloat8E8M0FNU ? std::exp2(std::round(z) - 6.0)
                                                       : 0.02 + 0.01 * std::tanh(z));
  }
  return t;
}

/// Any codes, with 0.02 and 0.01 in the float16 fields d and dmin.
Tensor gguf_blocks(const TensorSpec& spec, QuantEncoding encoding) {
  Tensor t = random_bits(spec);
  const auto put_half = [&](std::int64_t at, double value) {
    const std::uint64_t code = encode(ElementType::kFloat16, value);
    t.set_code(at, code);
    t.set_code(at + 1, code >> 8);
  };
  const bool has_min = encoding == QuantEncoding::kQ4_K || encoding == QuantEncoding::kQ5_K;
  for (std::int64_t block = 0; block < t.size(); block += gguf_block(encoding).bytes) {
    put_half(block + (encoding == QuantEncoding::kQ6_K ? 208 : 0), 0.02);
    if (has_min) {
      put_half(block + 2, 0.01);
    }
  }
  return t;
}

Tensor group_indices(const QuantConfig& quant, const TensorSpec& spec) {
  Tensor t(spec.types.front(), spec.shape);
  const std::int64_t width = quant.group_size > 0 ? quant.group_size : t.size();
  const std::int64_t groups = t.size() / width;
  for (std::int64_t k = 0; k < t.size(); ++k) {
    t.set_value(k, static_cast<double>(quant.desc_act ? k % groups : k / width));
  }
  return t;
}

/// 2^(bits-1), or one less in version 1, in every place of a word.
Tensor zero_points(const QuantConfig& quant, const TensorSpec& spec) {
  Tensor t(spec.types.front(), spec.shape);
  const std::uint64_t zero = (std::uint64_t{1} << (quant.bits - 1)) - (quant.checkpoint_v2 ? 0 : 1);
  for (std::int64_t i = 0; i < t.size(); ++i) {
    t.set_code(i, zero * (quant.bits == 4 ? 0x11111111U : 0x01010101U));
  }
  return t;
}

}  // namespace

Tensor quantised_weight(const AttentionConfig& config, const TensorSpec& spec) {
  const std::string projection = spec.name.substr(0, spec.name.find('.'));
  const std::string suffix = spec.name.substr(projection.size() + 1);
  if (suffix == "g_idx") {
    return group_indices(*config.quant, spec);
  }
  if (suffix == "qzeros") {
    return zero_points(*config.quant, spec);
  }
  if (suffix == "qweight") {
    return random_bits(spec);
  }
  if (suffix != "weight") {
    return scales(spec);
  }
  if (spec.types.front() == ElementType::kFloat8E4M3FN) {
    return normal_values(spec, 60.0);
  }
  for (const attn::Projection& p : projections_of(config)) {
    if (p.name == projection && is_gguf(p.encoding)) {
      return gguf_blocks(spec, p.encoding);
    }
  }
  return random_bits(spec);  // pairs of e2m1 codes
}

}  // namespace attn::reference::test
