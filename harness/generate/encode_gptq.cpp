#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "harness/generate/encode.h"

namespace attn::harness {
namespace {

/// Group of each input channel. With desc_act the channels are dealt to the groups in random order;
/// q, k and v see the same input and so share the deal.
std::vector<std::int64_t> group_indices(const EncodeJob& job, std::int64_t group_size) {
  const auto in = static_cast<std::size_t>(job.weight.columns);
  std::vector<std::int64_t> groups(in);
  for (std::size_t k = 0; k < in; ++k) groups[k] = static_cast<std::int64_t>(k) / group_size;
  if (!job.quant.desc_act) return groups;
  const RandomStream stream(job.seed, job.projection == "o_proj" ? "g_idx.o" : "g_idx.qkv");
  for (std::size_t i = in; i > 1; --i) std::swap(groups[i - 1], groups[stream.below(i, i)]);
  return groups;
}

/// Codes packed into int32 words along the first axis, lowest bits first. Padding is all ones: who
/// reads it sees the largest code.
class WordColumn {
 public:
  WordColumn(Tensor& words, std::int64_t bits) : words_(words), bits_(bits) {
    std::ranges::fill(words_.bytes(), std::byte{0xff});
  }
  /// Code `k` of the packed axis; `word` is the flat index of the word that holds it.
  void set(std::int64_t word, std::int64_t k, std::uint32_t code) {
    const auto shift = static_cast<std::uint32_t>(k % (32 / bits_) * bits_);
    const std::uint32_t mask = ((std::uint32_t{1} << static_cast<std::uint32_t>(bits_)) - 1)
                               << shift;
    std::uint32_t& target = words_.as<std::uint32_t>()[word];
    target = (target & ~mask) | code << shift;
  }

 private:
  Tensor& words_;
  std::int64_t bits_;
};

std::int64_t words_for(std::int64_t codes, std::int64_t bits) { return (codes * bits + 31) / 32; }

/// Every zero point is 2^(bits-1); version 1 stores one less.
Tensor zero_points(const EncodeJob& job, std::int64_t groups) {
  const std::int64_t bits = job.quant.bits;
  const std::int64_t words = words_for(job.weight.rows, bits);
  Tensor zeros(ElementType::kInt32, {groups, words});
  WordColumn column(zeros, bits);
  const std::uint32_t zero = (std::uint32_t{1} << static_cast<std::uint32_t>(bits - 1)) -
                             (job.quant.checkpoint_v2 ? 0U : 1U);
  for (std::int64_t g = 0; g < groups; ++g) {
    for (std::int64_t n = 0; n < job.weight.rows; ++n) {
      column.set(g * words + n * bits / 32, n, zero);
    }
  }
  return zeros;
}

}  // namespace

/// w[n, k] = (code[k, n] - 2^(bits-1)) * scales[g_idx[k], n]. A scale puts the largest magnitude of
/// its group halfway between the two outermost codes, so that both occur.
void encode_gptq(const EncodeJob& job, LayerWeights& weights) {
  const DenseMatrix& w = job.weight;
  const std::int64_t bits = job.quant.bits;
  const std::int64_t group_size =
      job.quant.group_size > 0 ? job.quant.group_size : std::max<std::int64_t>(w.columns, 1);
  const std::int64_t groups = job.quant.group_size > 0 ? w.columns / group_size : 1;
  const double zero = std::ldexp(1.0, static_cast<int>(bits - 1));
  const std::vector<std::int64_t> group_of = group_indices(job, group_size);

  Tensor scales(ElementType::kFloat16, {groups, w.rows});
  Tensor codes(ElementType::kInt32, {words_for(w.columns, bits), w.rows});
  WordColumn column(codes, bits);
  std::vector<double> largest(static_cast<std::size_t>(groups));
  for (std::int64_t n = 0; n < w.rows; ++n) {
    const std::span<const double> row = w.row(n);
    std::ranges::fill(largest, 0.0);
    for (std::size_t k = 0; k < row.size(); ++k) {
      double& group = largest[static_cast<std::size_t>(group_of[k])];
      group = std::max(group, std::abs(row[k]));
    }
    for (std::int64_t g = 0; g < groups; ++g) {
      const double amax = largest[static_cast<std::size_t>(g)];
      scales.set_value(g * w.rows + n, (amax > 0 ? amax : kNoMagnitude) / (zero - 0.5));
    }
    for (std::size_t k = 0; k < row.size(); ++k) {
      const double scale = scales.value(group_of[k] * w.rows + n);
      const double steps = scale > 0 ? std::nearbyint(row[k] / scale) : 0.0;
      const double code = std::clamp(steps + zero, 0.0, 2 * zero - 1);
      const auto channel = static_cast<std::int64_t>(k);
      column.set(channel * bits / 32 * w.rows + n, channel, static_cast<std::uint32_t>(code));
    }
  }
  Tensor g_idx(ElementType::kInt32, {w.columns});
  for (std::size_t k = 0; k < group_of.size(); ++k) {
    g_idx.as<std::int32_t>()[k] = static_cast<std::int32_t>(group_of[k]);
  }
  weights[job.projection + ".qweight"] = std::move(codes);
  weights[job.projection + ".scales"] = std::move(scales);
  weights[job.projection + ".qzeros"] = zero_points(job, groups);
  weights[job.projection + ".g_idx"] = std::move(g_idx);
}

}  // namespace attn::harness
