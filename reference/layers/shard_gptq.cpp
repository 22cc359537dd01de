#include "reference/layers/shard_gptq.h"

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <set>
#include <vector>

#include "reference/layers/shard_axis.h"

namespace attn::reference {
namespace {

using Groups = std::vector<std::int64_t>;

Groups groups_of(const Tensor& g_idx, Range columns) {
  const std::int32_t* first = g_idx.as<std::int32_t>() + columns.first;
  return {first, first + columns.count};
}

/// True when each run of `size` columns lies in one group.
bool are_runs(const Groups& groups, std::int64_t size) {
  for (std::size_t k = 0; k < groups.size(); ++k) {
    if (groups[k] != groups[k - k % static_cast<std::size_t>(size)]) return false;
  }
  return true;
}

/// Rows `which` of a tensor [groups, ...].
Tensor gather(const Tensor& stored, const Groups& which) {
  Tensor out(stored.type(), {static_cast<std::int64_t>(which.size()), stored.dim(1)});
  for (std::size_t i = 0; i < which.size(); ++i) {
    put(out, 0, static_cast<std::int64_t>(i), take(stored, 0, {which[i], 1}));
  }
  return out;
}

}  // namespace

Tensor take_packed(const Tensor& stored, std::size_t axis, Range range, std::int64_t bits) {
  const std::int64_t per_word = 32 / bits;
  const std::uint32_t mask = (std::uint32_t{1} << bits) - 1;
  Shape shape = stored.shape();
  shape[axis] = (range.count + per_word - 1) / per_word;
  Tensor part(stored.type(), shape);
  const std::int64_t others = shape[1 - axis];
  // Word `word` of the packed axis at place `other` of the other one.
  const auto index = [axis](const Tensor& t, std::int64_t word, std::int64_t other) {
    return axis == 0 ? word * t.dim(1) + other : other * t.dim(1) + word;
  };
  const auto* from = stored.as<std::uint32_t>();
  auto* to = part.as<std::uint32_t>();
  for (std::int64_t other = 0; other < others; ++other) {
    for (std::int64_t i = 0; i < range.count; ++i) {
      const std::int64_t at = range.first + i;
      const std::uint32_t word = from[index(stored, at / per_word, other)];
      const std::uint32_t code = (word >> (at % per_word * bits)) & mask;
      to[index(part, i / per_word, other)] |= code << (i % per_word * bits);
    }
  }
  return part;
}

std::int64_t gptq_group_size(const Tensor& g_idx, Range columns, const QuantConfig& quant) {
  if (quant.group_size == -1) return -1;
  std::int64_t size = std::gcd(quant.group_size, std::gcd(columns.first, columns.count));
  const Groups groups = groups_of(g_idx, columns);
  if (are_runs(groups, size)) return size;
  const auto used = static_cast<std::int64_t>(std::set(groups.begin(), groups.end()).size());
  while (quant.group_size % size != 0 || columns.count % size != 0 || columns.count / size < used) {
    --size;
  }
  return size;
}

void regroup(LayerWeights& weights, const std::string& projection, std::int64_t size) {
  if (size == -1) return;
  Tensor& g_idx = weights.at(projection + ".g_idx");
  const Groups groups = groups_of(g_idx, {0, g_idx.size()});
  Groups stored;  // the old group of each new one
  if (are_runs(groups, size)) {
    for (std::int64_t k = 0; k < g_idx.size(); ++k) {
      if (k % size == 0) stored.push_back(groups[static_cast<std::size_t>(k)]);
      g_idx.as<std::int32_t>()[k] = static_cast<std::int32_t>(k / size);
    }
  } else {
    const std::set<std::int64_t> used(groups.begin(), groups.end());
    stored.assign(used.begin(), used.end());
    for (std::int64_t k = 0; k < g_idx.size(); ++k) {
      const auto at = std::ranges::lower_bound(stored, groups[static_cast<std::size_t>(k)]);
      g_idx.as<std::int32_t>()[k] = static_cast<std::int32_t>(at - stored.begin());
    }
    // Groups that no column uses make up the number.
    stored.resize(static_cast<std::size_t>(g_idx.size() / size), stored.back());
  }
  for (const char* suffix : {".scales", ".qzeros"}) {
    Tensor& tensor = weights.at(projection + suffix);
    tensor = gather(tensor, stored);
  }
}

}  // namespace attn::reference
