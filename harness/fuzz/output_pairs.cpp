#include "harness/fuzz/output_pairs.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "harness/compare/compare.h"
#include "reference/reference.h"

namespace attn::harness {
namespace {

constexpr std::int64_t kPairs = 4, kCached = 6;

void use_pairs(CaseSpec& spec) {
  plain_cache().spec(spec);
  spec.config.mask = {};
  spec.config.mask.variant = MaskVariant::kNull;
  spec.sinks = false;
  spec.profile = spec.profile == "equal_keys" ? "normal" : spec.profile;
  spec.rows.assign(2 * kPairs, {kCached, 1});
}

void copy_values(Tensor& t, std::int64_t to, std::int64_t from, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) t.set_value(to + i, t.value(from + i));
}

/// The query heads of a group are made alike, so that one value serves them all.
void equal_heads_of_groups(Draft& d) {
  const AttentionConfig& config = d.config();
  const ProjectionRows rows = rows_of(config, Projection::kQ);
  Tensor& weight = d.c.weights.at(rows.weight);
  const std::int64_t columns = weight.dim(1);
  const auto bias = d.c.weights.find("q_proj.bias");
  for (std::int64_t h = 0; h < config.num_attention_heads; ++h) {
    const std::int64_t first = h / config.group_size() * config.group_size();
    if (h == first) continue;
    copy_values(weight, (rows.first + h * config.head_dim) * columns,
                (rows.first + first * config.head_dim) * columns, config.head_dim * columns);
    if (bias == d.c.weights.end()) continue;
    copy_values(bias->second, h * config.head_dim, first * config.head_dim, config.head_dim);
  }
}

/// The second of each pair has the inputs of the first, keys of zero, and at every cached token
/// `values` [kPairs, Hkv * Dv].
Construct pairs(const std::vector<double>& values) {
  return {use_pairs,
          [values](Draft& d) {
            const AttentionConfig& config = d.config();
            equal_heads_of_groups(d);
            for (std::int64_t pair = 0; pair < kPairs; ++pair) {
              copy_values(d.c.x, (kPairs + pair) * config.hidden_size, pair * config.hidden_size,
                          config.hidden_size);
              for (std::int64_t p = 0; p < kCached; ++p) {
                const std::int64_t token =
                    d.first_cached[static_cast<std::size_t>(kPairs + pair)] + p;
                for (std::int64_t i = 0; i < config.k_width(); ++i) {
                  d.k.set_value(token * config.k_width() + i, 0.0);
                }
                for (std::int64_t i = 0; i < config.v_width(); ++i) {
                  const auto at = static_cast<std::size_t>(pair * config.v_width() + i);
                  d.v.set_value(token * config.v_width() + i, values[at]);
                }
              }
            }
          },
          {}};
}

/// Values that give the second of each pair the attn_out of the first: its new token, whose value
/// is zero, has its share.
std::vector<double> values_for(const Case& c) {
  const AttentionConfig& config = c.config;
  const Trace exact = reference::evaluate(c, reference::Mode::kExact);
  constexpr double kShare = static_cast<double>(kCached + 1) / kCached;
  std::vector<double> values;
  for (std::int64_t pair = 0; pair < kPairs; ++pair) {
    for (std::int64_t i = 0; i < config.v_width(); ++i) {
      const std::int64_t head = i / config.head_dim_v * config.group_size();
      const std::int64_t column = head * config.head_dim_v + i % config.head_dim_v;
      values.push_back(kShare * exact[Stage::kAttnOut].value(pair * config.attn_width() + column));
    }
  }
  return values;
}

double rms(const Tensor& t) {
  double square = 0.0;
  for (const double value : t.values()) square += value * value;
  return std::sqrt(square / static_cast<double>(std::max<std::int64_t>(t.size(), 1)));
}

/// Fails where some pair's outputs differ by more than both may be off, four times over, as the
/// projection that they went through is not the exact one. Unknown where the exact ones differ too:
/// activations that are quantised to other codes.
Outcome judge(const Constructs::Run& run) {
  constexpr double kRoom = 4.0, kEqual = 1e-3;
  const Case& c = run.c;
  const Tensor& got = run.answer.got[Stage::kOut];
  const Trace exact = reference::evaluate(c, reference::Mode::kExact);
  const Tensor& want = exact[Stage::kOut];
  const std::vector<double> allowed =
      allowances(c, run.answer.got, run.answer.arithmetic)[static_cast<std::size_t>(Stage::kOut)];
  const double size = std::max(rms(want), 1e-30);
  const double gain = std::clamp(rms(got) / size, 1e-6, 1e6);
  const std::int64_t others = kPairs * c.config.hidden_size;
  bool differs = false;
  for (std::int64_t i = 0; i < others; ++i) {
    const double apart = std::abs(want.value(i) - want.value(i + others));
    const double both =
        allowed[static_cast<std::size_t>(i)] + allowed[static_cast<std::size_t>(i + others)];
    if (apart > both + kEqual * size) return Outcome::kUnknown;
    const double seen = std::abs(got.value(i) - got.value(i + others));
    differs = differs || !(seen <= kRoom * gain * (both + apart));
  }
  return differs ? Outcome::kFails : Outcome::kPasses;
}

}  // namespace

Outcome pairs_differ(const Constructs& layer, const Construct& change) {
  const Construct queries_alone =
      zero_projection(Projection::kK).with(zero_projection(Projection::kV)).with(change);
  Outcome outcome = Outcome::kUnknown;
  for (const FailingCase& base : layer.bases()) {
    for (std::uint64_t i = 0; i < Constructs::kSeeds; ++i) {
      const auto width = static_cast<std::size_t>(kPairs * base.spec.config.v_width());
      const Construct first = queries_alone.with(pairs(std::vector<double>(width, 0.0)));
      const auto live = layer.run(base, base.seed + i, first);
      if (!live) continue;
      const auto both =
          layer.run(base, base.seed + i, queries_alone.with(pairs(values_for(live->c))));
      if (!both) continue;
      const Outcome judged = judge(*both);
      if (judged == Outcome::kFails) return judged;
      if (judged == Outcome::kPasses) outcome = judged;
    }
  }
  return outcome;
}

}  // namespace attn::harness
