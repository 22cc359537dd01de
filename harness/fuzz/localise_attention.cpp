#include <algorithm>

#include "harness/fuzz/localise_internal.h"
#include "harness/fuzz/probabilities.h"

namespace attn::harness {
namespace {

using Error = ProbabilityError;

bool has_odd_cache(const FailingCase& base) {
  const AttentionConfig& config = base.spec.config;
  return config.kv_cache.dtype != config.dtype ||
         config.kv_cache.scale_granularity != ScaleGranularity::kNone;
}

bool any_sinks(const Constructs& cases) {
  return std::ranges::any_of(cases.bases(),
                             [](const FailingCase& base) { return base.spec.sinks; });
}

/// Of a failure that no plain cache shows.
Localised in_decoding(const Constructs& attention) {
  const Error error = read_probabilities(attention, {}, true);
  if (error == Error::kNone || error == Error::kScaled) {
    return {Stage::kCacheV, true,
            "right with a cache of the activations' type; with this one the probabilities are, up "
            "to a factor of the values"};
  }
  return {Stage::kCacheK, true,
          "right with a cache of the activations' type; with this one the probabilities are not"};
}

Localised of_probabilities(Error error) {
  switch (error) {
    case Error::kScaled:
      return {Stage::kLse, true,
              "the probabilities, read through identity values, are right up to a factor of a row: "
              "the denominator"};
    case Error::kMassKept:
      return {Stage::kLse, true,
              "the probabilities, read through identity values, are wrong and sum to what they "
              "should"};
    case Error::kNotFinite:
      return {Stage::kLse, false, "probabilities, read through identity values, are not finite"};
    case Error::kMoved:
      return {Stage::kAttnOut, true,
              "the probabilities, read through identity values, are right but in other rows"};
    case Error::kOther:
      return {Stage::kAttnOut, true,
              "what identity values give are no probabilities: they do not sum to what a softmax "
              "does"};
    case Error::kNone:
      return {Stage::kAttnOut, true, "the probabilities, read through identity values, are right"};
    case Error::kUnknown:
      break;
  }
  return {Stage::kAttnOut, false, "the probabilities could not be read"};
}

}  // namespace

Localised localise_attention(const Constructs& attention) {
  const Construct nothing;
  bool odd_cache = false;
  for (const FailingCase& base : attention.bases()) odd_cache |= has_odd_cache(base);
  if (odd_cache && attention.passes(plain_cache_type())) return in_decoding(attention);
  Construct typed = odd_cache ? plain_cache_type() : nothing;
  if (any_sinks(attention)) {
    if (attention.passes(typed.with(without_sinks()))) {
      return {Stage::kLse, true, "right without sinks"};
    }
    typed = typed.with(without_sinks());  // sums of probabilities are 1 or 0 then
  }
  if (attention.fails(typed.with(counting()))) {
    const Error error = read_probabilities(attention, typed, false);
    if (error == Error::kOther) return of_probabilities(error);
    return {Stage::kLse, true, "with keys of zero and values of one rows still weigh wrong"};
  }
  const bool scores = attention.fails(typed.with(equal_heads()).with(values_of_one()));
  const bool values = attention.fails(typed.with(equal_heads()).with(zero_keys()));
  if (scores && values) {
    return {
        Stage::kCacheK, true,
        "wrong where keys are zero as well as where values are one, right where both are: other "
        "tokens are read"};
  }
  if (attention.passes(typed.with(plain_pages()))) {
    if (scores) {
      return {Stage::kCacheK, true,
              "right on pages of 128 in order; on these the keys are wrong, wherever values lie"};
    }
    if (values) {
      return {Stage::kCacheV, true,
              "right on pages of 128 in order; on these the values are wrong, the keys are not"};
    }
  }
  const Error error = read_probabilities(attention, typed, false);
  if (error == Error::kNotFinite && attention.passes(typed.with(values_everywhere()))) {
    return {Stage::kAttnOut, true,
            "not finite, and right where every slot of the pool holds a value: values that no key "
            "owns are read"};
  }
  return of_probabilities(error);
}

}  // namespace attn::harness
