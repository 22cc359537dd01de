#include "harness/fuzz/construct.h"

#include <algorithm>
#include <utility>

#include "reference/core/error.h"

namespace attn::harness {
namespace {

template <typename Argument>
std::function<void(Argument&)> chained(const std::function<void(Argument&)>& first,
                                       const std::function<void(Argument&)>& second) {
  if (!first) return second;
  if (!second) return first;
  return [first, second](Argument& argument) {
    first(argument);
    second(argument);
  };
}

void fill(Tensor& t, std::int64_t first, std::int64_t count, double value) {
  for (std::int64_t i = first; i < first + count; ++i) t.set_value(i, value);
}

void fill(Tensor& t, double value) { fill(t, 0, t.size(), value); }

/// Every slot of the pool like that of the first token, the scales as well.
void spread_first_token(const Case& c, Tensor& pool, Tensor& scale, bool keys) {
  for (std::int64_t b = 0; b < c.batch(); ++b) {
    const std::int64_t tokens = c.config.starts_at_attention() ? c.key_count(b) : c.cached(b);
    if (tokens == 0) continue;
    const std::int64_t at = keys ? c.cache.k_index(b, 0) : c.cache.v_index(b, 0);
    const std::uint64_t code = pool.code(at);
    for (std::int64_t i = 0; i < pool.size(); ++i) pool.set_code(i, code);
    if (scale.size() == 0) return;
    const double value = scale.value(c.cache.scale_index(scale, c.cache.slot(b, 0), 0));
    fill(scale, value);
    return;
  }
}

void equal_sinks(Case& c) {
  const auto sinks = c.weights.find("sinks");
  if (sinks != c.weights.end()) fill(sinks->second, 1.0);
}

}  // namespace

Construct Construct::with(const Construct& next) const {
  return {chained(spec, next.spec), chained(shape, next.shape), chained(data, next.data)};
}

std::optional<Constructs::Run> Constructs::run(const FailingCase& base, std::uint64_t seed,
                                               const Construct& construct) const {
  CaseSpec spec = base.spec;
  if (construct.spec) construct.spec(spec);
  try {
    Run run{make_case(spec, seed, construct.shape), {}};
    if (construct.data) construct.data(run.c);
    run.answer = probe_(run.c);
    if (!run.answer.ran) return std::nullopt;
    return run;
  } catch (const Error&) {  // the change does not go with the rest of the config
    return std::nullopt;
  }
}

Outcome Constructs::outcome(const Construct& construct) const {
  bool any = false;
  for (const FailingCase& base : bases_) {
    for (std::uint64_t i = 0; i < kSeeds; ++i) {
      const auto one = run(base, base.seed + i, construct);
      if (!one) continue;
      any = true;
      if (one->answer.bad) return Outcome::kFails;
    }
  }
  return any ? Outcome::kPasses : Outcome::kUnknown;
}

Construct plain_cache_type() {
  return {[](CaseSpec& spec) {
            spec.config.kv_cache.dtype = spec.config.dtype;
            spec.config.kv_cache.scale_granularity = ScaleGranularity::kNone;
          },
          {},
          {}};
}

Construct plain_pages() {
  return {[](CaseSpec& spec) {
            spec.config.kv_cache.page_size = KvCacheConfig().page_size;
            spec.pages = PageOrder::kIdentity;
            spec.layers = 1;
            spec.layer = 0;
            spec.layout = MemoryLayout();
          },
          {},
          {}};
}

Construct plain_cache() { return plain_cache_type().with(plain_pages()); }

Construct without_norm() {
  return {[](CaseSpec& spec) { spec.config.use_qk_norm = false; }, {}, {}};
}

Construct without_sinks() {
  return {[](CaseSpec& spec) { spec.sinks = false; }, {}, {}};
}

Construct full_rotation() {
  return {[](CaseSpec& spec) {
            spec.config.rope.rotary_dim.reset();
            spec.config.rope.rotary_side = RotarySide::kFirst;
            spec.config.rope.scaling = {};  // its lists are as long as the rotation has pairs
          },
          {},
          {}};
}

Construct dense_weights() {
  return {[](CaseSpec& spec) {
            spec.config.quant.reset();
            const Variant variant = spec.config.variant;
            if (variant == Variant::kGguf || variant == Variant::kGptq) {
              spec.config.variant = Variant::kAttentionWithRope;
            }
          },
          {},
          {}};
}

Construct zero_projection(Projection projection) {
  return {[](CaseSpec& spec) {  // a norm of zeros is NaN where its epsilon rounds to zero
            constexpr double kLeast = 1e-6;
            spec.config.rms_norm_eps = std::max(spec.config.rms_norm_eps, kLeast);
          },
          [projection](Draft& d) {
            const ProjectionRows rows = rows_of(d.config(), projection);
            Tensor& weight = d.c.weights.at(rows.weight);
            fill(weight, rows.first * weight.dim(1), rows.count * weight.dim(1), 0.0);
            constexpr const char* kBias[] = {"q_proj.bias", "k_proj.bias", "v_proj.bias"};
            const auto bias = d.c.weights.find(kBias[static_cast<std::size_t>(projection)]);
            if (bias != d.c.weights.end()) fill(bias->second, 0.0);
          },
          {}};
}

Construct zero_keys() {
  return {{}, [](Draft& d) { fill(d.k, 0.0); }, {}};
}

Construct zero_values() {
  return {{}, [](Draft& d) { fill(d.v, 0.0); }, {}};
}

Construct no_rotation() {
  return {{}, {}, [](Case& c) {
            for (std::int64_t i = 0; i < c.freqs_cis.size(); ++i) {
              c.freqs_cis.set_value(i, i % 2 == 0 ? 1.0 : 0.0);
            }
          }};
}

Construct equal_heads() {
  return {{},
          [](Draft& d) {
            const AttentionConfig& config = d.config();
            const auto make_equal = [](Tensor& t, std::int64_t width, std::int64_t heads) {
              const std::int64_t row = width * heads;
              for (std::int64_t i = 0; i < t.size(); ++i) {
                t.set_value(i, t.value(i / row * row + i % width));
              }
            };
            make_equal(d.k, config.head_dim, config.num_key_value_heads);
            make_equal(d.v, config.head_dim_v, config.num_key_value_heads);
            if (!d.c.q.empty()) make_equal(d.c.q, config.head_dim, config.num_attention_heads);
          },
          {}};
}

Construct values_everywhere() {
  return {{}, {}, [](Case& c) { spread_first_token(c, c.cache.v, c.cache.v_scale, false); }};
}

Construct values_of_one() {
  return {[](CaseSpec& spec) { spec.sinks = true; }, [](Draft& d) { fill(d.v, 1.0); },
          [](Case& c) {
            spread_first_token(c, c.cache.v, c.cache.v_scale, false);
            equal_sinks(c);
          }};
}

Construct counting() {
  return values_of_one().with(
      {{},
       [](Draft& d) { fill(d.k, 0.0); },
       [](Case& c) { spread_first_token(c, c.cache.k, c.cache.k_scale, true); }});
}

Construct stored_zeros() {
  return {{}, {}, [](Case& c) {
            if (c.config.starts_at_attention()) return;
            for (std::int64_t b = 0; b < c.batch(); ++b) {
              for (std::int64_t p = c.cached(b); p < c.key_count(b); ++p) {
                fill(c.cache.k, c.cache.k_index(b, p), c.config.k_width(), 0.0);
                fill(c.cache.v, c.cache.v_index(b, p), c.config.v_width(), 0.0);
              }
            }
          }};
}

}  // namespace attn::harness
