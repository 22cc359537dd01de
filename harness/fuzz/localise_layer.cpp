#include <algorithm>
#include <functional>
#include <string>
#include <utility>

#include "harness/backends/plugin_operands.h"
#include "harness/fuzz/localise_internal.h"
#include "harness/fuzz/output_pairs.h"
#include "harness/generate/shrink.h"
#include "reference/reference.h"

namespace attn::harness {
namespace {

/// q, k or v on its way to attention.
struct PathStages {
  const char* what;
  Stage projected, normed, rotated;
};
constexpr PathStages kQueries{"queries", Stage::kQProj, Stage::kQNorm, Stage::kQRope};
constexpr PathStages kKeys{"keys", Stage::kKProj, Stage::kKNorm, Stage::kKRope};

/// What becomes of the case that shows a wrong path with one more change.
using WithChange = std::function<Outcome(const Construct&)>;

template <typename Has>
bool any(const Constructs& cases, const Has& has) {
  return std::ranges::any_of(cases.bases(),
                             [&](const FailingCase& base) { return has(base.spec.config); });
}

/// What must be there for the path to fail names the stage; the projection where nothing must.
Localised on_path(const PathStages& path, const Constructs& cases, const WithChange& with_change) {
  const bool has_norm = any(cases, [](const AttentionConfig& c) { return c.use_qk_norm; });
  const bool is_partial =
      any(cases, [](const AttentionConfig& c) { return c.rope.rotary_dim.has_value(); });
  const std::string alone =
      std::string("wrong where the new tokens' ") + path.what + " alone carry values";
  if (with_change(no_rotation()) == Outcome::kPasses) {
    return {path.rotated, true, alone + ", right where positions turn nothing"};
  }
  if (is_partial && with_change(full_rotation()) == Outcome::kPasses) {
    return {path.rotated, true, alone + ", right where every channel turns"};
  }
  if (has_norm && with_change(without_norm()) == Outcome::kPasses) {
    return {path.normed, true, alone + ", right without the norm"};
  }
  return {path.projected, true, alone + ", whatever norm and rotation do"};
}

bool is_zero(const Tensor& t, std::int64_t row) {
  const std::int64_t columns = t.dim(1);
  for (std::int64_t j = 0; j < columns; ++j) {
    if (t.value(row * columns + j) != 0.0) return false;
  }
  return true;
}

class LayerLocaliser {
 public:
  LayerLocaliser(const Constructs& layer) : layer_(layer) {}

  Localised find() const {
    const Construct no_v = zero_projection(Projection::kV);
    const Construct no_k = zero_projection(Projection::kK);
    const Construct no_q = zero_projection(Projection::kQ);
    const Construct nothing_new = no_q.with(no_k).with(no_v);
    if (layer_.fails(nothing_new.with(zero_values()))) return in_store(nothing_new);
    if (is_left_out()) {
      return {Stage::kQProj, false, "rows of zeros: they were never computed"};
    }
    if (layer_.fails(nothing_new)) return past_output(nothing_new);
    const auto with = [&](const Construct& alone) -> WithChange {
      return [this, alone](const Construct& change) { return layer_.outcome(alone.with(change)); };
    };
    const Construct queries = no_k.with(no_v);
    if (layer_.fails(queries)) return on_path(kQueries, layer_, with(queries));
    if (layer_.fails(no_v)) {
      if (layer_.passes(no_v.with(plain_cache()))) {
        return {Stage::kCacheK, true, "wrong where keys carry values, right with a plain cache"};
      }
      return on_path(kKeys, layer_, with(no_v));
    }
    const Construct values = no_q.with(no_k);
    if (layer_.fails(values)) {
      if (layer_.fails(values.with(plain_cache()))) {
        return {Stage::kVProj, true, "wrong where the new tokens' values alone carry values"};
      }
      return {Stage::kCacheV, true,
              "wrong where values alone carry values, right with a plain cache"};
    }
    return {Stage::kQProj, false, "right wherever queries, keys and values are taken one by one"};
  }

 private:
  /// Whether a run has a row of exact zeros where there should be other values.
  bool is_left_out() const {
    for (const FailingCase& base : layer_.bases()) {
      const auto run = layer_.run(base, base.seed, {});
      if (!run || run->answer.bad != Stage::kOut) continue;
      const Trace exact = reference::evaluate(run->c, reference::Mode::kExact);
      for (std::int64_t row = 0; row < run->c.tokens(); ++row) {
        if (is_zero(run->answer.got[Stage::kOut], row) && !is_zero(exact[Stage::kOut], row)) {
          return true;
        }
      }
    }
    return false;
  }

  /// Whether some row whose attn_out must be zero has an output.
  bool makes_something_of_nothing(const Construct& construct) const {
    for (const FailingCase& base : layer_.bases()) {
      const auto run = layer_.run(base, base.seed, construct);
      if (!run || !run->answer.bad) continue;
      const Trace exact = reference::evaluate(run->c, reference::Mode::kExact);
      for (std::int64_t row = 0; row < run->c.tokens(); ++row) {
        if (is_zero(exact[Stage::kAttnOut], row) && is_zero(exact[Stage::kOut], row) &&
            !is_zero(run->answer.got[Stage::kOut], row)) {
          return true;
        }
      }
    }
    return false;
  }

  /// Of a failure that is there though every value is zero: what unused slots hold is read.
  Localised in_store(const Construct& nothing_new) const {
    const Construct zeros = nothing_new.with(zero_values());
    const bool quantised =
        any(layer_, [](const AttentionConfig& c) { return c.quant.has_value(); });
    if (quantised && layer_.passes(zeros.with(dense_weights()))) {
      return {
          Stage::kQProj, false,
          "wrong though every value is zero, right with dense weights: zeros are not decoded to "
          "zeros, and queries are the first to need them"};
    }
    if (any(layer_, [](const AttentionConfig& c) { return c.use_qk_norm; }) &&
        layer_.passes(zeros.with(without_norm()))) {
      return {Stage::kQNorm, true, "wrong though every value is zero, right without the norm"};
    }
    if (layer_.passes(zeros.with(stored_zeros()))) {
      return {Stage::kCacheK, true, "right where the slots of the new tokens hold zeros before"};
    }
    if (layer_.passes(zeros.with(plain_cache()))) {
      return {Stage::kCacheK, true, "wrong though every value is zero, right with a plain cache"};
    }
    return {Stage::kLse, false,
            "wrong though every value is zero: attention reads what it must not"};
  }

  /// Of a failure that is there though only values of the cache are not zero: the output
  /// projection, and perhaps what comes before it.
  Localised past_output(const Construct& nothing_new) const {
    if (layer_.passes(nothing_new.with(without_sinks()))) {
      return {Stage::kLse, true, "right without sinks, wrong with them whatever queries are"};
    }
    if (makes_something_of_nothing(nothing_new)) {
      return {
          Stage::kLse, true,
          "a row whose keys all have values of zero has another output: attention reads what it "
          "must not"};
    }
    const Outcome pairs = pairs_differ(layer_, {});
    if (pairs == Outcome::kFails) {
      return on_path(kQueries, layer_,
                     [this](const Construct& change) { return pairs_differ(layer_, change); });
    }
    const bool quantised =
        any(layer_, [](const AttentionConfig& c) { return c.quant.has_value(); });
    if (pairs == Outcome::kUnknown && quantised &&
        layer_.passes(nothing_new.with(dense_weights()))) {
      return {Stage::kQProj, false,
              "right with dense weights, and queries are the first to be quantised"};
    }
    return {Stage::kOut, pairs == Outcome::kPasses,
            "wrong though the new tokens' queries, keys and values are zero, and equal rows before "
            "the output projection have equal outputs"};
  }

  const Constructs& layer_;
};

/// The attention of a layer's case, on its own exact queries and cache in the types of the config.
Case attention_inside(const Constructs::Run& run, const CaseSpec& spec) {
  Task task;
  task.given = bit(Stage::kQRope) | bit(Stage::kCacheK) | bit(Stage::kCacheV);
  PluginOperands operands = make_operands(run.c, task);
  Case c;
  c.id = run.c.id;
  c.config = attention_alone(spec).config;
  c.q = std::move(operands.given[static_cast<std::size_t>(Stage::kQRope)]);
  c.input_row_offsets = run.c.input_row_offsets;
  c.cache_lengths = std::move(operands.key_lengths);
  c.mask = run.c.mask;
  c.cache = std::move(operands.cache);
  if (run.c.has_sinks()) c.weights["sinks"] = run.c.weights.at("sinks");
  return c;
}

bool attention_fails_inside(const Constructs& layer) {
  for (const FailingCase& base : layer.bases()) {
    const auto run = layer.run(base, base.seed, {});
    if (run && layer.answer(attention_inside(*run, base.spec)).bad) return true;
  }
  return false;
}

}  // namespace

Localised localise_layer(const Constructs& layer, const Constructs& attention) {
  if (attention.fails({})) return localise_attention(attention);
  if (attention_fails_inside(layer)) {
    return {Stage::kLse, false,
            "attention alone is wrong on the exact queries and cache of the failing layer"};
  }
  return LayerLocaliser(layer).find();
}

Localised localise_cache(const Constructs& cache) {
  std::optional<Stage> bad;
  for (const FailingCase& base : cache.bases()) {
    const auto run = cache.run(base, base.seed, {});
    if (run && run->answer.bad && (!bad || *run->answer.bad < *bad)) bad = run->answer.bad;
  }
  const bool keys = bad != Stage::kCacheV;
  const Stage stage = keys ? Stage::kCacheK : Stage::kCacheV;
  if (!bad) return {stage, false, "did not fail again"};
  const Construct zeros = zero_projection(Projection::kK).with(zero_projection(Projection::kV));
  if (cache.fails(zeros)) {
    const bool quantised = any(cache, [](const AttentionConfig& c) { return c.quant.has_value(); });
    if (quantised && cache.passes(zeros.with(dense_weights()))) {
      return {keys ? Stage::kKProj : Stage::kVProj, true,
              "right with dense weights; zeros are not decoded to zeros"};
    }
    return {stage, true, "wrong though all that is stored is zero"};
  }
  if (cache.passes(plain_cache())) return {stage, true, "right with a plain cache"};
  if (!keys) return {Stage::kVProj, true, "wrong with a plain cache as well"};
  return on_path(kKeys, cache, [&](const Construct& change) {
    return cache.outcome(plain_cache().with(change));
  });
}

}  // namespace attn::harness
