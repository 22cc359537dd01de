#include "harness/fuzz/fit.h"

#include <algorithm>
#include <iterator>
#include <vector>

#include "harness/generate/feature_axes.h"
#include "reference/core/error.h"

namespace attn::harness {
namespace {

/// What a config has besides features that can be left out.
struct Basis {
  ElementType dtype;
  MaskVariant mask;
  std::int64_t head_dim;
  std::int64_t page_size;
};

/// The axes of the config whose plain value the spec does not have, but for type and mask.
std::vector<const FeatureAxis*> removable(const CaseSpec& spec) {
  std::vector<const FeatureAxis*> axes;
  for (const FeatureAxis& axis : feature_axes()) {
    if (!axis.value(spec) || axis.name == "dtype" || axis.name == "mask") continue;
    CaseSpec plain = spec;
    axis.reset(plain);
    if (plain.config != spec.config) axes.push_back(&axis);
  }
  return axes;
}

/// The spec on this basis, without those of the features.
CaseSpec without(const CaseSpec& spec, const Basis& basis,
                 const std::vector<const FeatureAxis*>& features) {
  CaseSpec changed = spec;
  for (const FeatureAxis* axis : features) {
    if (axis->value(changed)) axis->reset(changed);
  }
  AttentionConfig& config = changed.config;
  if (config.kv_cache.dtype == config.dtype) config.kv_cache.dtype = basis.dtype;
  config.dtype = basis.dtype;
  if (config.mask.variant != basis.mask) {
    config.mask.variant = basis.mask;
    config.mask.window_size.reset();
    config.mask.chunk_size.reset();
  }
  if (config.head_dim_v == config.head_dim) config.head_dim_v = basis.head_dim;
  config.head_dim = basis.head_dim;
  config.kv_cache.page_size = basis.page_size;
  settle(changed);
  return changed;
}

using IsSupported = std::function<bool(const CaseSpec&)>;

/// Each feature again that the backend takes.
CaseSpec with_what_it_takes(const CaseSpec& spec, const Basis& basis,
                            std::vector<const FeatureAxis*> left_out,
                            const IsSupported& is_supported) {
  const std::vector<const FeatureAxis*> all = left_out;
  for (const FeatureAxis* const feature : all) {
    std::vector<const FeatureAxis*> fewer;
    std::ranges::copy_if(left_out, std::back_inserter(fewer),
                         [feature](const FeatureAxis* axis) { return axis != feature; });
    if (is_supported(without(spec, basis, fewer))) left_out = fewer;
  }
  return without(spec, basis, left_out);
}

/// Every basis, that of the spec first.
std::vector<Basis> bases_of(const AttentionConfig& config) {
  std::vector<Basis> bases;
  for (const std::int64_t page : {config.kv_cache.page_size, std::int64_t{16}, std::int64_t{128}}) {
    for (const std::int64_t head_dim : {config.head_dim, std::int64_t{64}, std::int64_t{128}}) {
      for (const ElementType dtype :
           {config.dtype, ElementType::kFloat32, ElementType::kBFloat16, ElementType::kFloat16}) {
        for (const MaskVariant mask :
             {config.mask.variant, MaskVariant::kCausal, MaskVariant::kNull}) {
          bases.push_back({dtype, mask, head_dim, page});
        }
      }
    }
  }
  return bases;
}

}  // namespace

std::optional<CaseSpec> fitted(const CaseSpec& spec,
                               const std::function<bool(const AttentionConfig&)>& supports) {
  const IsSupported is_supported = [&](const CaseSpec& changed) {
    try {
      validate(changed);
    } catch (const Error&) {
      return false;
    }
    return supports(changed.config);
  };
  if (is_supported(spec)) return spec;
  const std::vector<const FeatureAxis*> left_out = removable(spec);
  for (const Basis& basis : bases_of(spec.config)) {
    if (is_supported(without(spec, basis, left_out))) {
      return with_what_it_takes(spec, basis, left_out, is_supported);
    }
  }
  return std::nullopt;
}

}  // namespace attn::harness
