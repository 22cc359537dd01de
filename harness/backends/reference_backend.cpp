#include "harness/backends/reference_backend.h"

namespace attn::harness {
namespace {

class ReferenceBackend final : public Backend {
 public:
  explicit ReferenceBackend(reference::Mode mode) : mode_(mode) {}

  std::string name() const override {
    return mode_ == reference::Mode::kExact ? "exact" : "faithful";
  }
  std::string unsupported_reason(const AttentionConfig& config) const override {
    return reference::unsupported_reason(config);
  }
  Arithmetic arithmetic(const AttentionConfig& config) const override;
  Trace run(const Case& c, std::span<const Stage> wanted) const override;

 private:
  reference::Mode mode_;
};

Arithmetic ReferenceBackend::arithmetic(const AttentionConfig& config) const {
  Arithmetic a;
  a.projection_acc = Accumulator::kFloat64;
  a.attention_acc = Accumulator::kFloat64;
  a.exp_rel = 0x1p-52;
  if (mode_ == reference::Mode::kExact) {
    a.store = a.out = a.lse = a.cache = ElementType::kFloat64;
    a.probabilities = a.norm_eps = a.scaling = a.partial = ElementType::kFloat64;
    return a;
  }
  const ElementType t = config.dtype;
  a.store = a.out = t;
  a.cache = config.kv_cache.dtype;
  // That of V as read from the cache; float8 codes are read into the layer's type.
  a.probabilities = element_size(config.kv_cache.dtype) == 1 ? t : config.kv_cache.dtype;
  a.cos_sin = a.norm_eps = t;
  a.rope_native = true;
  a.float32_frequencies = true;
  a.round_twice = true;
  a.partial = t;
  a.native_weights = true;
  if (config.quant && config.quant->activation == ActivationQuant::kInt8) {
    // Blocks of 32 columns (256 for K-quants) are summed in whole numbers, and added up in float32.
    a.projection_acc = Accumulator::kFloat32;
    a.lanes = 32;
  }
  return a;
}

Trace ReferenceBackend::run(const Case& c, std::span<const Stage> /*wanted*/) const {
  return reference::evaluate(c, mode_);
}

}  // namespace

std::unique_ptr<Backend> make_reference_backend(reference::Mode mode) {
  return std::make_unique<ReferenceBackend>(mode);
}

}  // namespace attn::harness
