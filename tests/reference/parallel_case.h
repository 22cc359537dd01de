#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "reference/core/config.h"
#include "tests/reference/make_case.h"

namespace attn::reference::test {

/// A layer of 16 query heads on 8 kv heads, so that up to 8 devices hold whole groups.
struct Dims {
  std::int64_t head_dim = 16;
  std::int64_t hidden = 128;
};

/// `quant` and `dtype` as in a config's JSON; a causal layer with pages of 4.
inline AttentionConfig parallel_config(const std::string& quant, std::int64_t devices,
                                       Dims dims = {}, const std::string& dtype = "float32") {
  return parse_config(R"({"variant": "tensor_parallel", "entry_point": "forward",
      "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": )" +
                      std::to_string(dims.head_dim) + R"(, "hidden_size": )" +
                      std::to_string(dims.hidden) + R"(, "dtype": ")" + dtype +
                      R"(", "num_devices": )" + std::to_string(devices) +
                      R"(, "rope": {"interleaved": false, "theta": 10000.0},
      "mask": {"variant": "causal"}, "kv_cache": {"page_size": 4}, "quant": )" +
                      quant + "}");
}

/// Three sequences, the last without new rows, in the second of two layers of a pool. Another
/// `seed`, other data.
inline Case parallel_case(const AttentionConfig& config, std::uint64_t seed = 0,
                          std::vector<Sequence> sequences = {{1, 5, 3}, {2, 0, 2}, {3, 2, 0}}) {
  for (Sequence& s : sequences) s.id += 10 * seed;
  PagingOptions paging;
  paging.seed = seed;
  paging.num_layers = 2;
  paging.layer = 1;
  return make_case(config, sequences, paging);
}

}  // namespace attn::reference::test
