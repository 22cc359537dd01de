#include "harness/fuzz/localise.h"

#include <utility>

#include "harness/generate/shrink.h"
#include "reference/core/error.h"

namespace attn::harness {
namespace {

using Change = std::function<void(CaseSpec&)>;
using DataChange = std::function<void(Case&)>;

/// q, k or v on its way to attention.
struct PathStages {
  Stage projected, normed, rotated;
  std::optional<Stage> cached;
};
constexpr PathStages kQueries{Stage::kQProj, Stage::kQNorm, Stage::kQRope, std::nullopt};
constexpr PathStages kKeys{Stage::kKProj, Stage::kKNorm, Stage::kKRope, Stage::kCacheK};

void use_plain_cache(CaseSpec& spec) {
  KvCacheConfig& cache = spec.config.kv_cache;
  cache.dtype = spec.config.dtype;
  cache.scale_granularity = ScaleGranularity::kNone;
  cache.page_size = KvCacheConfig().page_size;
  spec.pages = PageOrder::kIdentity;
  spec.layers = 1;
  spec.layer = 0;
}

/// Positions turn nothing.
void use_identity_rotation(Case& c) {
  for (std::int64_t i = 0; i < c.freqs_cis.size(); ++i) c.freqs_cis.set_value(i, i % 2 == 0);
}

/// Every token of the cache has the values of its first channel everywhere: what is read from where
/// does not matter any more, only how much of it.
void use_equal_values(Case& c) {
  for (std::int64_t i = 0; i < c.cache.v.size(); ++i) c.cache.v.set_value(i, 1.0);
  const Tensor& scale = c.cache.v_scale;
  for (std::int64_t i = 0; i < scale.size(); ++i) c.cache.v_scale.set_value(i, 1.0);
}

class Localiser {
 public:
  Localiser(std::uint64_t seed, const FinalProbe& probe) : seed_(seed), probe_(probe) {}

  Stage of(const CaseSpec& spec) const {
    if (spec.config.starts_at_attention()) return in_attention(spec);
    if (spec.config.entry_point == EntryPoint::kMaterializeKvFromHidden) return in_cache(spec);
    return in_layer(spec);
  }

 private:
  /// Whether a case of the changed spec fails, with some of a few seeds.
  bool fails(CaseSpec spec, const Change& change, const DataChange& data = {}) const {
    if (change) change(spec);
    constexpr std::uint64_t kSeeds = 3;
    for (std::uint64_t i = 0; i < kSeeds; ++i) {
      if (bad_part(spec, seed_ + i, data)) return true;
    }
    return false;
  }
  std::optional<Stage> bad_part(const CaseSpec& spec, std::uint64_t seed,
                                const DataChange& data = {}) const {
    try {
      Case c = make_case(spec, seed);
      if (data) data(c);
      return probe_(c);
    } catch (const Error&) {  // the change does not go with the rest of the config
      return std::nullopt;
    }
  }

  Stage in_layer(const CaseSpec& spec) const {
    const CaseSpec attention = attention_alone(spec);
    if (fails(attention, {})) return in_attention(attention);
    CaseSpec cache = spec;
    cache.config.entry_point = EntryPoint::kMaterializeKvFromHidden;
    if (fails(cache, {})) return in_cache(cache);
    // Keys of zero: the queries say nothing.
    if (fails(spec, [](CaseSpec& s) { s.profile = "equal_keys"; })) return Stage::kOut;
    return on_path(spec, kQueries);
  }

  Stage in_cache(const CaseSpec& spec) const {
    constexpr std::uint64_t kSeeds = 3;
    for (std::uint64_t i = 0; i < kSeeds; ++i) {
      const std::optional<Stage> bad = bad_part(spec, seed_ + i);
      if (bad == Stage::kCacheK) return on_path(spec, kKeys);
      if (bad) return fails(spec, use_plain_cache) ? Stage::kVProj : Stage::kCacheV;
    }
    return Stage::kCacheK;
  }

  /// What must be there for the case to fail names the stage; the projection where nothing must.
  Stage on_path(const CaseSpec& spec, const PathStages& path) const {
    if (path.cached && !fails(spec, use_plain_cache)) return *path.cached;
    if (!fails(spec, {}, use_identity_rotation)) return path.rotated;
    const bool has_norm = spec.config.use_qk_norm;
    if (has_norm && !fails(spec, [](CaseSpec& s) { s.config.use_qk_norm = false; })) {
      return path.normed;
    }
    return path.projected;
  }

  Stage in_attention(const CaseSpec& spec) const {
    if (fails(spec, {}, use_equal_values)) return Stage::kLse;  // the probabilities' sum
    const auto equal_keys = [](CaseSpec& s) { s.profile = "equal_keys"; };
    if (!fails(spec, equal_keys)) {
      return fails(spec, use_plain_cache) ? Stage::kLse : Stage::kCacheK;
    }
    // All visible keys count alike, so that either others are visible or the values are wrong.
    const auto all_visible = [&](CaseSpec& s) {
      equal_keys(s);
      s.config.mask = {};
      s.config.mask.variant = MaskVariant::kNull;
    };
    if (!fails(spec, all_visible)) return Stage::kLse;
    const auto plain_cache = [&](CaseSpec& s) {
      equal_keys(s);
      use_plain_cache(s);
    };
    return fails(spec, plain_cache) ? Stage::kAttnOut : Stage::kCacheV;
  }

  std::uint64_t seed_;
  const FinalProbe& probe_;
};

}  // namespace

Trace final_answer(const Case& c, Trace answer) {
  Trace last;
  const auto keep = [&](Stage stage) { last[stage] = std::move(answer[stage]); };
  switch (c.config.entry_point) {
    case EntryPoint::kForward:
      keep(Stage::kOut);
      break;
    case EntryPoint::kAttention:
      keep(Stage::kAttnOut);
      break;
    case EntryPoint::kMaterializeKvFromHidden:
      keep(Stage::kCacheK);
      keep(Stage::kCacheV);
      break;
  }
  return last;
}

Stage localise(const CaseSpec& spec, std::uint64_t seed, const FinalProbe& probe) {
  return Localiser(seed, probe).of(spec);
}

}  // namespace attn::harness
