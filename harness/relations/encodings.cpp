#include <algorithm>
#include <array>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "harness/relations/battery.h"
#include "reference/stages/projection_input.h"
#include "reference/stages/weights.h"

namespace attn::harness {
namespace {

using Bitwise = Relation::Bitwise;
using reference::Matrix;
using reference::Projection;

bool is_encoded(const Case& c) {
  return !c.config.starts_at_attention() && c.tokens() > 0 && c.config.quant.has_value();
}

Tensor as_float(const Matrix& values, const Shape& shape) {
  Tensor tensor(ElementType::kFloat32, shape);
  for (std::int64_t i = 0; i < values.size(); ++i) tensor.set_value(i, values.data()[i]);
  return tensor;
}

Tensor as_float(const Tensor& values) {
  Tensor tensor(ElementType::kFloat32, values.shape());
  for (std::int64_t i = 0; i < values.size(); ++i) tensor.set_value(i, values.value(i));
  return tensor;
}

/// What a projection multiplies: hidden states [tokens, hidden] and weight [out, hidden], decoded.
struct Factors {
  Matrix x, weight;
};

/// The numbers that encoded weights stand for: those of the exact layer, unless the backend
/// declares that it prepares them as the layer in config.dtype does. Its bounds are measured from
/// these too.
reference::Rounding decoding(const Arithmetic& arithmetic) {
  return reference::Rounding(arithmetic.native_weights ? reference::Mode::kFaithful
                                                       : reference::Mode::kExact);
}

Factors factors_of(const Case& c, Projection p, const Arithmetic& arithmetic) {
  const reference::Rounding exact(reference::Mode::kExact);
  const Matrix x = reference::decode_matrix(c.x, c.tokens(), c.config.hidden_size);
  return {reference::projection_input(c, p, x, exact).value(),
          reference::projection_weight(c, p, decoding(arithmetic))};
}

/// The layer in float32 with dense weights, whose hidden states are those of `base`; only its
/// projections are those of `c`.
Case dense_case(const Case& c, Projection base, const Arithmetic& arithmetic) {
  Case dense = c;
  AttentionConfig& config = dense.config;
  config.variant = Variant::kAttentionWithRope;
  config.quant.reset();
  config.clip_qkv.reset();
  config.clip_activations.reset();
  config.stacked_qkv = false;
  config.num_devices = 1;
  config.kv_head_replication = false;
  config.dtype = ElementType::kFloat32;
  config.kv_cache.dtype = ElementType::kFloat32;
  config.kv_cache.scale_granularity = ScaleGranularity::kNone;
  dense.cache.k = as_float(c.cache.k);
  dense.cache.v = as_float(c.cache.v);
  dense.cache.k_scale = dense.cache.v_scale = Tensor();
  dense.x = as_float(factors_of(c, base, arithmetic).x, c.x.shape());
  dense.weights.clear();
  for (const TensorSpec& spec : expected_weights(config)) {
    const auto kept = c.weights.find(spec.name);
    if (kept != c.weights.end() && !spec.name.ends_with("_proj.weight")) {
      dense.weights[spec.name] = as_float(kept->second);
    }
  }
  for (const Projection p : {Projection::kQ, Projection::kK, Projection::kV, Projection::kO}) {
    const Matrix weight = reference::projection_weight(c, p, decoding(arithmetic));
    const std::string name = reference::name_of(p);
    dense.weights[name + ".weight"] = as_float(weight, {weight.rows(), weight.cols()});
    if (p == Projection::kO || !config.has_bias) continue;
    const Matrix bias = reference::projection_bias(c, p);
    dense.weights[name + ".bias"] = as_float(bias, {bias.cols()});
  }
  return dense;
}

/// Adds to the allowances of a projection what the rounding of both factors to float32 may be off.
void allow_float_factors(const Factors& factors, Measured& projected) {
  constexpr double kTwoRoundings = 0x1p-22;  // of each term, with room for their product
  const Matrix terms = factors.x.cwiseAbs() * factors.weight.cwiseAbs().transpose();
  for (std::size_t i = 0; i < projected.allowed.size(); ++i) {
    projected.allowed[i] += kTwoRoundings * terms.data()[i];
  }
}

/// Encoded weights stand for numbers, and so do the codes of activations: a layer with these
/// numbers, in float32, has the same projections.
RelationResult check_dense_weights(const Subject& subject) {
  const Case& c = subject.c();
  const Measurement& own = own_measurement(subject);
  const bool has_q = !own[Stage::kQProj].empty();
  const Projection base = has_q ? Projection::kQ : Projection::kK;
  const Arithmetic arithmetic = subject.backend().arithmetic(c.config);
  const Case dense = dense_case(c, base, arithmetic);
  if (std::string reason = refusal(subject, dense); !reason.empty()) {
    return skipped(std::move(reason));
  }
  Measurement other = measure(subject, dense, answer(subject, dense));
  Measurement want;
  const double clip = c.config.clip_activations.value_or(std::numeric_limits<double>::infinity());
  for (const auto& [stage, p] :
       {std::pair{Stage::kQProj, Projection::kQ}, std::pair{Stage::kKProj, Projection::kK},
        std::pair{Stage::kVProj, Projection::kV}}) {
    // The codes of the hidden states depend on the encoding.
    const bool same_codes = !reference::quantises_input(c.config) ||
                            encoding_of(c.config, p) == encoding_of(c.config, base);
    if (other[stage].empty() || !same_codes) continue;
    want[stage] = std::move(other[stage]);
    allow_float_factors(factors_of(c, p, arithmetic), want[stage]);
    for (double& value : want[stage].values) value = std::clamp(value, -clip, clip);
  }
  return compare_answers(subject, "dense_weights", own, want,
                         "dense float32 weights of the same numbers");
}

constexpr std::array kRelations{
    Relation{"dense_weights", "encoded weights equal dense ones of the same numbers",
             Bitwise::kNever, is_encoded, check_dense_weights},
};

}  // namespace

std::span<const Relation> encoding_relations() { return kRelations; }

}  // namespace attn::harness
