#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "reference/core/config.h"
#include "reference/core/memory_layout.h"
#include "reference/core/tensor.h"

namespace attn {

/// Weights as stored, quantised ones still encoded, by their golden-format names without the
/// "weights/" prefix: "q_proj.weight" [Hq*D, hidden], "o_proj.weight" [hidden, Hq*D], "q_proj.bias",
/// "q_norm.weight" [D], "sinks" [Hq], ... The names and shapes that a config needs: expected_weights.
using LayerWeights = std::map<std::string, Tensor>;

/// Paged key-value cache of one or more layers that share a pool of pages. Token position p of
/// sequence b lies in page page_table[b, p / page_size], slot p % page_size. Pages that no position
/// refers to and slots past a sequence's end hold anything, NaN in generated cases.
struct KvCache {
  std::int64_t page_size = 0;
  std::int64_t num_layers = 1;
  std::int64_t layer = 0;  ///< the layer that the case reads and writes
  Tensor k;                ///< [num_pages, num_layers, page_size, num_kv_heads, head_dim]
  Tensor v;                ///< [num_pages, num_layers, page_size, num_kv_heads, head_dim_v]
  /// fp8 caches only, float32: [] (tensor), [num_kv_heads] (head), or
  /// [num_pages, num_layers, page_size, num_kv_heads] (token_head).
  Tensor k_scale;
  Tensor v_scale;
  /// [batch, max_pages_per_sequence] uint32; columns past a sequence's last page hold num_pages.
  Tensor page_table;

  std::int64_t num_pages() const { return k.dim(0); }
  /// Flat index of element (page_table[b, p / page_size], layer, p % page_size, 0, 0) in k (or v).
  std::int64_t k_index(std::int64_t b, std::int64_t p) const;
  std::int64_t v_index(std::int64_t b, std::int64_t p) const;
  /// (page_table[b, p / page_size] * num_layers + layer) * page_size + p % page_size: which row of
  /// [num_kv_heads, head_dim] of the pool position p is.
  std::int64_t slot(std::int64_t b, std::int64_t p) const;
  /// Flat index in `scale`, k_scale or v_scale, of the scale of head `head` in a slot.
  std::int64_t scale_index(const Tensor& scale, std::int64_t slot, std::int64_t head) const;
  /// Page that holds position p of sequence b. Throws Error(kInput) when the entry is out of range.
  std::int64_t page_of(std::int64_t b, std::int64_t p) const;

  friend bool operator==(const KvCache&, const KvCache&) = default;
};

/// One test case: config, weights, inputs and prior cache. Sequence b owns rows
/// input_row_offsets[b] .. input_row_offsets[b+1]-1.
struct Case {
  std::string id;
  AttentionConfig config;
  LayerWeights weights;
  Tensor x;                  ///< [tokens, hidden_size], config.dtype; absent for entry point attention
  Tensor q;                  ///< [tokens, num_attention_heads, head_dim]; entry point attention only
  Tensor input_row_offsets;  ///< [batch + 1] uint32
  /// [batch] uint32. forward, materialize: tokens cached before the call. attention: all keys.
  Tensor cache_lengths;
  Tensor freqs_cis;          ///< [positions, rotary_dim] float32, (cos, sin) pairs; absent for attention
  Tensor mask;               ///< [tokens, max(kv_lengths)] float32; mask variant "tensor" only
  KvCache cache;             ///< before the call
  MemoryLayout layout;       ///< how a kernel gets the tensors; no part of their values
  std::string repro;         ///< the command-line words that make this case again, "" when unknown

  std::int64_t batch() const { return input_row_offsets.size() - 1; }
  std::int64_t tokens() const;
  std::int64_t row_begin(std::int64_t b) const;  ///< input_row_offsets[b]
  std::int64_t row_count(std::int64_t b) const;  ///< query rows of sequence b
  std::int64_t cached(std::int64_t b) const;     ///< cache_lengths[b] (attention: all keys)
  /// Keys of sequence b after the call: cached + new rows (attention: kv_lengths[b]).
  std::int64_t key_count(std::int64_t b) const;
  std::int64_t total_keys() const;               ///< sum of key_count
  /// Position, for masks, of query row i of sequence b: key_count - row_count + i, or i for top_left.
  /// May be negative when there are more queries than keys.
  std::int64_t query_position(std::int64_t b, std::int64_t i) const;
  bool has_sinks() const { return weights.count("sinks") != 0; }
};

/// What the table of weights says of one tensor.
struct TensorSpec {
  std::string name;
  Shape shape;
  /// Types that the file may hold; the first is the generator's choice.
  std::vector<ElementType> types;
  bool optional = false;
};

/// Names, shapes and types of the weights that `config` needs (sinks optional, as their presence
/// switches them on).
std::vector<TensorSpec> expected_weights(const AttentionConfig& config);

}  // namespace attn
