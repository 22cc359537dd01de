#pragma once

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <iterator>
#include <optional>
#include <string_view>
#include <vector>

#include "harness/generate/case_spec.h"
#include "reference/core/philox.h"

namespace attn::harness {

/// Draws one after another from a stream.
class Draw {
 public:
  explicit Draw(std::uint64_t seed, std::string_view stream = "random_small_spec")
      : stream_(seed, stream) {}

  std::int64_t between(std::int64_t low, std::int64_t high) {
    const auto n = static_cast<std::uint64_t>(high - low + 1);
    return low + static_cast<std::int64_t>(stream_.below(next_++, n));
  }
  /// True once in n times.
  bool one_in(std::int64_t n) { return between(1, n) == 1; }
  /// One of the list; a value given k times is k times as likely.
  template <typename T>
  T pick(std::initializer_list<T> list) {
    return *(list.begin() + between(0, static_cast<std::int64_t>(list.size()) - 1));
  }
  template <typename T>
  T pick(const std::vector<T>& list) {
    return list.at(
        static_cast<std::size_t>(between(0, static_cast<std::int64_t>(list.size()) - 1)));
  }
  /// One of the values up to `most`; at least one must be.
  std::int64_t pick_up_to(std::int64_t most, std::initializer_list<std::int64_t> list) {
    std::vector<std::int64_t> fitting;
    std::copy_if(list.begin(), list.end(), std::back_inserter(fitting),
                 [most](std::int64_t v) { return v <= most; });
    return pick(fitting);
  }

 private:
  RandomStream stream_;
  std::uint64_t next_ = 0;
};

/// What a seed is about. Dealt by the seed, not drawn, so that seeds in a row go through every
/// encoding, activation mode and granularity in every variant, and through every fp8 cache.
struct Plan {
  std::optional<Variant> variant;    ///< absent: drawn
  std::optional<QuantConfig> quant;  ///< encodings, activation, granularity, bits and group size
  bool mixed = false;                ///< gguf: k, v and o get other encodings than q
  bool fp8_cache = false;
  ScaleGranularity granularity = ScaleGranularity::kNone;
};

/// Of eight seeds in a row four are not quantised at all, three have quantised weights (half of
/// them an fp8 cache besides), one an fp8 cache alone.
Plan plan_of(std::uint64_t seed);

bool is_gguf(QuantEncoding encoding);

/// Heads and widths of a dense layer or of entry point attention.
void draw_shape(Draw& draw, AttentionConfig& config);

/// Heads and widths that the blocks of config.quant fit, and the rest of config.quant.
void draw_quantised_shape(Draw& draw, const Plan& plan, AttentionConfig& config);

/// Columns of a weight row that belong together.
std::int64_t block_width(const QuantConfig& quant, QuantEncoding encoding);

/// Blocks of fp8 scales: their height divides that of k and v; the last may be narrower than the
/// others. Activations by block need a width of 128.
void draw_fp8_blocks(Draw& draw, const AttentionConfig& config, QuantConfig& quant);

/// A bound that clips 5 % to 13 % of the k and v weights, or fp8 codes.
double draw_weight_clip(Draw& draw, const AttentionConfig& config);

/// The parameters of scaling.type, for so many rotating pairs.
void draw_scaling_parameters(Draw& draw, RopeScaling& scaling, std::int64_t pairs);

}  // namespace attn::harness
