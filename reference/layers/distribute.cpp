#include "reference/layers/distribute.h"

#include <string_view>
#include <utility>

#include "reference/core/rules.h"

namespace attn::reference {

std::vector<Tensor> distribute_value(const Tensor& value, std::span<const std::int64_t> devices) {
  return std::vector<Tensor>(devices.size(), value);
}

std::vector<Case> device_cases(std::span<const Layer> shards, const DeviceInputs& inputs) {
  const std::pair<std::string_view, std::size_t> lists[] = {
      {"xs", inputs.xs.size()},
      {"input_row_offsets", inputs.input_row_offsets.size()},
      {"cache_lengths", inputs.cache_lengths.size()},
      {"freqs_cis", inputs.freqs_cis.size()},
      {"kv_collections", inputs.kv_collections.size()}};
  for (const auto& [name, length] : lists) {
    check_device_list(name, static_cast<std::int64_t>(length),
                      static_cast<std::int64_t>(shards.size()));
  }
  std::vector<Case> cases;
  for (std::size_t i = 0; i < shards.size(); ++i) {
    Case c;
    c.config = shards[i].config;
    c.weights = shards[i].weights;
    c.x = inputs.xs[i];
    c.input_row_offsets = inputs.input_row_offsets[i];
    c.cache_lengths = inputs.cache_lengths[i];
    c.freqs_cis = inputs.freqs_cis[i];
    c.cache = inputs.kv_collections[i];
    cases.push_back(std::move(c));
  }
  return cases;
}

}  // namespace attn::reference
