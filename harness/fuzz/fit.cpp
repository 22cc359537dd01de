#include "harness/fuzz/fit.h"

#include <algorithm>
#include <iterator>
#include <utility>
#include <vector>

#include "harness/generate/feature_axes.h"
#include "reference/core/error.h"

namespace attn::harness {
namespace {

/// What a config has besides features that can be left out.
struct Basis {
  EntryPoint entry_point;
  ElementType dtype;
  MaskVariant mask;
  std::int64_t head_dim;
  std::int64_t head_dim_v;
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
  config.entry_point = basis.entry_point;
  config.head_dim = basis.head_dim;
  config.head_dim_v = basis.head_dim_v;
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

/// Of keys and of values: those of the config, the keys' for both, common ones.
std::vector<std::pair<std::int64_t, std::int64_t>> head_dims_of(const AttentionConfig& config) {
  std::vector<std::pair<std::int64_t, std::int64_t>> dims = {{config.head_dim, config.head_dim_v}};
  for (const std::int64_t both : {config.head_dim, std::int64_t{64}, std::int64_t{128}}) {
    const std::pair pair{both, both};
    if (pair != dims.front()) dims.push_back(pair);
  }
  return dims;
}

/// A call that only writes the cache is nothing to a kernel that reads it: it becomes the layer's.
std::vector<EntryPoint> entry_points_of(const AttentionConfig& config) {
  if (config.entry_point != EntryPoint::kMaterializeKvFromHidden) return {config.entry_point};
  return {config.entry_point, EntryPoint::kForward};
}

/// Every basis, that of the spec first.
std::vector<Basis> bases_of(const AttentionConfig& config) {
  std::vector<Basis> bases;
  const auto add = [&](std::int64_t page, std::pair<std::int64_t, std::int64_t> dims) {
    for (const ElementType dtype :
         {config.dtype, ElementType::kFloat32, ElementType::kBFloat16, ElementType::kFloat16}) {
      for (const MaskVariant mask :
           {config.mask.variant, MaskVariant::kCausal, MaskVariant::kNull}) {
        for (const EntryPoint entry_point : entry_points_of(config)) {
          bases.push_back({entry_point, dtype, mask, dims.first, dims.second, page});
        }
      }
    }
  };
  for (const std::int64_t page : {config.kv_cache.page_size, std::int64_t{16}, std::int64_t{128}}) {
    for (const auto& dims : head_dims_of(config)) add(page, dims);
  }
  return bases;
}

/// As many keys as queries: nothing was cached.
void without_cached_keys(CaseSpec& spec) {
  for (RowSpec& row : spec.rows) {
    if (spec.config.starts_at_attention()) {
      row.second = row.first;
    } else {
      row.first = 0;
    }
  }
}

/// On as many keys as before.
void with_one_query(CaseSpec& spec) {
  for (RowSpec& row : spec.rows) {
    if (spec.config.starts_at_attention()) {
      row.first = 1;
    } else {
      row = {std::max<std::int64_t>(row.first + row.second - 1, 0), 1};
    }
  }
}

/// Enough that half of them, as other_case has, is several too.
constexpr std::int64_t kSeveral = 8;

/// The queries stay; what a sequence lacks of several keys was cached before.
void with_several_keys(CaseSpec& spec) {
  for (RowSpec& row : spec.rows) {
    if (spec.config.starts_at_attention()) {
      row.second = std::max(row.second, kSeveral);
    } else {
      row.first = std::max(row.first, kSeveral - row.second);
    }
  }
}

/// Several queries to each sequence, and as many keys at the least.
void with_several_queries(CaseSpec& spec) {
  for (RowSpec& row : spec.rows) {
    if (spec.config.starts_at_attention()) {
      row.first = std::max(row.first, kSeveral);
      row.second = std::max(row.second, row.first);
    } else {
      row.second = std::max(row.second, kSeveral);
    }
  }
}

void without_mask(CaseSpec& spec) {
  spec.config.mask.variant = MaskVariant::kNull;
  spec.config.mask.window_size.reset();
  spec.config.mask.chunk_size.reset();
}

bool is_valid(const CaseSpec& spec) {
  try {
    validate(spec);
  } catch (const Error&) {
    return false;
  }
  return true;
}

}  // namespace

std::optional<CaseSpec> fitted(const CaseSpec& spec,
                               const std::function<bool(const AttentionConfig&)>& supports) {
  const IsSupported is_supported = [&](const CaseSpec& changed) {
    return is_valid(changed) && supports(changed.config);
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

std::vector<CaseSpec> plainer_for_a_run(const CaseSpec& spec) {
  std::vector<CaseSpec> found;
  const auto add = [&](const CaseSpec& changed) {
    const bool is_new = changed != spec && std::ranges::find(found, changed) == found.end();
    if (is_new && is_valid(changed)) found.push_back(changed);
  };
  CaseSpec plain = spec;
  plain.layout = MemoryLayout();
  add(plain);
  plain.sinks = false;
  add(plain);
  using Change = std::function<void(CaseSpec&)>;
  const Change without_scale = [](CaseSpec& changed) { changed.config.scale.reset(); };
  for (const std::vector<Change>& changes :
       {std::vector<Change>{without_scale},
        {with_several_keys},
        {without_cached_keys},
        {with_one_query},
        {without_mask},
        {without_cached_keys, without_scale},
        {without_mask, without_scale},
        {with_several_keys, without_scale},
        {with_several_keys, without_mask},
        {with_several_queries, without_cached_keys},
        {with_several_queries, without_cached_keys, without_mask, without_scale}}) {
    CaseSpec changed = plain;
    for (const Change& change : changes) change(changed);
    add(changed);
  }
  return found;
}

}  // namespace attn::harness
