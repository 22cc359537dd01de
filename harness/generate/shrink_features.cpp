#include <algorithm>

#include "harness/generate/feature_axes.h"
#include "harness/generate/shrink.h"

namespace attn::harness {
namespace {

std::string counted(std::int64_t n, const std::string& noun) {
  return std::to_string(n) + " " + noun + (n == 1 ? "" : "s");
}

}  // namespace

std::vector<std::string> non_default_features(const CaseSpec& spec) {
  std::vector<std::string> features;
  for (const FeatureAxis& axis : feature_axes()) {
    const std::optional<std::string> value = axis.value(spec);
    if (!value) continue;
    features.emplace_back(axis.name);
    if (!value->empty()) features.back().append(": ").append(*value);
  }
  return features;
}

std::string headline_sizes(const CaseSpec& spec) {
  std::int64_t keys = 0;
  for (const RowSpec& row : spec.rows) {
    keys = std::max(keys, spec.config.starts_at_attention() ? row.second : row.first + row.second);
  }
  return counted(spec.config.num_attention_heads, "head") + ", " + counted(keys, "key") +
         ", page " + std::to_string(spec.config.kv_cache.page_size);
}

std::vector<std::string> all_sizes(const CaseSpec& spec) {
  const AttentionConfig& config = spec.config;
  std::vector<std::string> sizes = {counted(config.num_attention_heads, "head") + " on " +
                                    counted(config.num_key_value_heads, "kv head")};
  std::string width = "head_dim " + std::to_string(config.head_dim);
  if (config.head_dim_v != config.head_dim) {
    width += " and " + std::to_string(config.head_dim_v) + " of v";
  }
  sizes.push_back(width);
  if (config.hidden_size > 0) sizes.push_back("hidden_size " + std::to_string(config.hidden_size));
  if (config.num_devices > 1) sizes.push_back(counted(config.num_devices, "device"));
  std::string rows;
  constexpr std::size_t kMost = 8;
  for (std::size_t i = 0; i < std::min(kMost, spec.rows.size()); ++i) {
    if (i > 0) rows += " and ";
    rows += config.starts_at_attention()
                ? counted(spec.rows[i].first, "row") + " on " + counted(spec.rows[i].second, "key")
                : std::to_string(spec.rows[i].first) + " cached + " +
                      std::to_string(spec.rows[i].second) + " new";
  }
  if (spec.rows.size() > kMost) rows += " and " + counted(std::ssize(spec.rows) - 8, "more");
  if (!rows.empty()) sizes.push_back(rows);
  sizes.push_back("page_size " + std::to_string(config.kv_cache.page_size));
  return sizes;
}

}  // namespace attn::harness
