#include "golden/second_evaluation.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "golden/second_activations.h"
#include "golden/second_matrix.h"
#include "golden/second_rope_table.h"
#include "golden/second_weights.h"

namespace attn::golden {
namespace {

constexpr Real kMinusInfinity = -std::numeric_limits<Real>::infinity();

/// x * W^T.
Matrix times_transposed(const Matrix& x, const Matrix& w) {
  Matrix out(x.rows, w.rows);
  for (std::int64_t t = 0; t < x.rows; ++t) {
    for (std::int64_t o = 0; o < w.rows; ++o) {
      for (std::int64_t i = 0; i < x.cols; ++i) out.at(t, o) += x.at(t, i) * w.at(o, i);
    }
  }
  return out;
}

/// Where every query row sits.
struct Row {
  std::int64_t sequence = 0;
  std::int64_t index = 0;  ///< among its sequence's rows
  std::int64_t count = 0;  ///< of its sequence's rows
};

class Evaluation {
 public:
  Evaluation(const Case& c, const Trace* first);
  Trace run();

 private:
  Matrix project(const std::string& name, Matrix input) const;
  Matrix normalized(const Matrix& in, std::int64_t heads, const char* gamma) const;
  Matrix rotated(const Matrix& in, std::int64_t heads) const;
  Matrix whole_cache(const Tensor& pool, const Tensor& scale, const Matrix* new_rows,
                     std::int64_t dim) const;
  Real cached_scale(const Tensor& scale, std::int64_t slot, std::int64_t head) const;
  Real new_scale(const Tensor& scale, std::int64_t head, const Real* row, std::int64_t dim) const;
  bool visible(std::int64_t query, std::int64_t key) const;
  Real score(const Matrix& q, const Matrix& keys, std::int64_t row, std::int64_t head,
             std::int64_t key) const;
  void attend(const Matrix& q, const Matrix& keys, const Matrix& values, std::int64_t row,
              std::int64_t head);
  void attend_all(const Matrix& q, const Matrix& keys, const Matrix& values);
  void keep(Stage stage, const Matrix& matrix);
  Matrix before_codes(Stage stage, const Matrix& own) const;

  const Case& c_;
  const AttentionConfig& config_;
  const Trace* first_;  ///< the evaluation that this one is compared with, or nothing
  std::vector<Row> rows_;
  std::vector<std::int64_t> lengths_;     ///< keys per sequence after the call
  std::vector<std::int64_t> cached_;      ///< keys per sequence that the cache holds before it
  std::vector<std::int64_t> key_begins_;  ///< first row of a sequence in the whole cache
  std::int64_t total_keys_ = 0;
  Matrix lse_;
  Matrix attn_out_;
  Trace trace_;
};

Evaluation::Evaluation(const Case& c, const Trace* first)
    : c_(c), config_(c.config), first_(first) {
  const std::int64_t batch = c.input_row_offsets.size() - 1;
  for (std::int64_t b = 0; b < batch; ++b) {
    const auto begin = static_cast<std::int64_t>(c.input_row_offsets.code(b));
    const auto count = static_cast<std::int64_t>(c.input_row_offsets.code(b + 1)) - begin;
    for (std::int64_t i = 0; i < count; ++i) rows_.push_back({b, i, count});
    const auto cached = static_cast<std::int64_t>(c.cache_lengths.code(b));
    cached_.push_back(cached);
    lengths_.push_back(config_.entry_point == EntryPoint::kAttention ? cached : cached + count);
    key_begins_.push_back(total_keys_);
    total_keys_ += lengths_.back();
  }
}

/// input * W^T + bias, clipped; the input first as the codes that the layer multiplies.
Matrix Evaluation::project(const std::string& name, Matrix input) const {
  quantise_input(c_, name, input);
  Matrix out = times_transposed(input, second_weight(c_, name));
  if (name == "o_proj") return out;
  if (config_.has_bias) {
    const Tensor& bias = c_.weights.at(name + ".bias");
    for (std::int64_t t = 0; t < out.rows; ++t) {
      for (std::int64_t o = 0; o < out.cols; ++o) out.at(t, o) += bias.value(o);
    }
  }
  if (config_.clip_activations) clip(out, *config_.clip_activations);
  return out;
}

/// RMS norm of each head of each row, times gamma.
Matrix Evaluation::normalized(const Matrix& in, std::int64_t heads, const char* gamma) const {
  const std::int64_t dim = config_.head_dim;
  const Tensor& g = c_.weights.at(gamma);
  Matrix out(in.rows, in.cols);
  for (std::int64_t t = 0; t < in.rows; ++t) {
    for (std::int64_t h = 0; h < heads; ++h) {
      Real squares = 0;
      for (std::int64_t d = 0; d < dim; ++d) {
        const Real v = in.at(t, h * dim + d);
        squares += v * v;
      }
      const Real rms = std::sqrt(squares / static_cast<Real>(dim) + config_.rms_norm_eps);
      for (std::int64_t d = 0; d < dim; ++d) {
        out.at(t, h * dim + d) = in.at(t, h * dim + d) / rms * g.value(d);
      }
    }
  }
  return out;
}

/// Rotates pairs of channels by the row's angles in inputs/freqs_cis; the other channels pass.
Matrix Evaluation::rotated(const Matrix& in, std::int64_t heads) const {
  const std::int64_t dim = config_.head_dim;
  const std::int64_t rotary = config_.rope.rotary_dim.value_or(dim);
  const std::int64_t first = config_.rope.rotary_side == RotarySide::kLast ? dim - rotary : 0;
  Matrix out = in;
  for (std::int64_t t = 0; t < in.rows; ++t) {
    const Row& row = rows_[static_cast<std::size_t>(t)];
    const std::int64_t position = cached_[static_cast<std::size_t>(row.sequence)] + row.index;
    for (std::int64_t h = 0; h < heads; ++h) {
      for (std::int64_t j = 0; j < rotary / 2; ++j) {
        const Real cosine = c_.freqs_cis.value(position * rotary + 2 * j);
        const Real sine = c_.freqs_cis.value(position * rotary + 2 * j + 1);
        const std::int64_t a = h * dim + first + (config_.rope.interleaved ? 2 * j : j);
        const std::int64_t b = config_.rope.interleaved ? a + 1 : a + rotary / 2;
        out.at(t, a) = in.at(t, a) * cosine - in.at(t, b) * sine;
        out.at(t, b) = in.at(t, a) * sine + in.at(t, b) * cosine;
      }
    }
  }
  return out;
}

/// Scale of a cached row's head: of the whole cache, of its head, or its own.
Real Evaluation::cached_scale(const Tensor& scale, std::int64_t slot, std::int64_t head) const {
  switch (config_.kv_cache.scale_granularity) {
    case ScaleGranularity::kNone:
      return 1;
    case ScaleGranularity::kTensor:
      return scale.value(0);
    case ScaleGranularity::kHead:
      return scale.value(head);
    case ScaleGranularity::kTokenHead:
      return scale.value(slot * config_.num_key_value_heads + head);
  }
  return 0;
}

/// Scale that a new row's head is stored with.
Real Evaluation::new_scale(const Tensor& scale, std::int64_t head, const Real* row,
                           std::int64_t dim) const {
  if (config_.kv_cache.scale_granularity != ScaleGranularity::kTokenHead) {
    return cached_scale(scale, 0, head);
  }
  Real largest = 0;
  for (std::int64_t d = 0; d < dim; ++d) largest = std::max(largest, std::fabs(row[d]));
  const float s = static_cast<float>(static_cast<double>(largest) / 448.0);
  return s == 0 ? 1 : s;
}

/// All keys (or values) in logical order: what the pages hold, then the call's own rows, which only
/// an 8-bit cache rounds.
Matrix Evaluation::whole_cache(const Tensor& pool, const Tensor& scale, const Matrix* new_rows,
                               std::int64_t dim) const {
  const std::int64_t heads = config_.num_key_value_heads;
  const std::int64_t page_size = c_.cache.page_size;
  const std::int64_t columns = c_.cache.page_table.empty() ? 0 : c_.cache.page_table.dim(1);
  Matrix out(total_keys_, heads * dim);
  for (std::size_t b = 0; b < lengths_.size(); ++b) {
    for (std::int64_t p = 0; p < cached_[b]; ++p) {
      const auto entry = static_cast<std::int64_t>(b) * columns + p / page_size;
      const auto page = static_cast<std::int64_t>(c_.cache.page_table.code(entry));
      const std::int64_t slot =
          (page * c_.cache.num_layers + c_.cache.layer) * page_size + p % page_size;
      for (std::int64_t i = 0; i < out.cols; ++i) {
        out.at(key_begins_[b] + p, i) =
            pool.value(slot * out.cols + i) * cached_scale(scale, slot, i / dim);
      }
    }
  }
  if (new_rows == nullptr) return out;
  const ElementType type = config_.kv_cache.dtype;
  for (std::size_t t = 0; t < rows_.size(); ++t) {
    const auto b = static_cast<std::size_t>(rows_[t].sequence);
    const std::int64_t to = key_begins_[b] + cached_[b] + rows_[t].index;
    for (std::int64_t i = 0; i < out.cols; ++i) {
      const Real v = new_rows->at(static_cast<std::int64_t>(t), i);
      out.at(to, i) = v;
      if (element_size(type) > 1) continue;
      const Real* head = &new_rows->data[t * static_cast<std::size_t>(out.cols)] + i / dim * dim;
      const auto s = static_cast<double>(new_scale(scale, i / dim, head, dim));
      out.at(to, i) = static_cast<Real>(round_to(type, static_cast<double>(v) / s)) * s;
    }
  }
  return out;
}

bool Evaluation::visible(std::int64_t query, std::int64_t key) const {
  const MaskConfig& mask = config_.mask;
  switch (mask.variant) {
    case MaskVariant::kNull:
    case MaskVariant::kTensor:
      return true;
    case MaskVariant::kCausal:
      return key <= query;
    case MaskVariant::kChunkedCausal:
      return key <= query && query / *mask.chunk_size == key / *mask.chunk_size;
    case MaskVariant::kSlidingWindowCausal:
      return key <= query && query - key < *mask.window_size;
    case MaskVariant::kSlidingWindowNoncausal:
      return key + *mask.window_size > query;
  }
  return false;
}

/// Scaled, capped and masked-by-addition score of one query row and one key (of its own sequence).
Real Evaluation::score(const Matrix& q, const Matrix& keys, std::int64_t row, std::int64_t head,
                       std::int64_t key) const {
  const std::int64_t dim = config_.head_dim;
  const std::int64_t kv_head = head / (config_.num_attention_heads / config_.num_key_value_heads);
  const std::int64_t sequence = rows_[static_cast<std::size_t>(row)].sequence;
  Real dot = 0;
  for (std::int64_t d = 0; d < dim; ++d) {
    dot += q.at(row, head * dim + d) *
           keys.at(key_begins_[static_cast<std::size_t>(sequence)] + key, kv_head * dim + d);
  }
  const Real scale =
      config_.scale ? static_cast<Real>(*config_.scale) : 1 / std::sqrt(static_cast<Real>(dim));
  Real s = scale * dot;
  if (config_.logit_softcap) {
    const Real cap = *config_.logit_softcap;
    s = cap * std::tanh(s / cap);
  }
  if (config_.mask.variant == MaskVariant::kTensor) {
    s += c_.mask.value(row * c_.mask.dim(1) + key);
  }
  return s;
}

/// One row of one head: softmax over the visible keys, the sink as one more logit without a value.
void Evaluation::attend(const Matrix& q, const Matrix& keys, const Matrix& values, std::int64_t row,
                        std::int64_t head) {
  const Row& r = rows_[static_cast<std::size_t>(row)];
  const auto b = static_cast<std::size_t>(r.sequence);
  const bool top_left = config_.mask.align == MaskAlign::kTopLeft;
  const std::int64_t query = top_left ? r.index : lengths_[b] - r.count + r.index;
  const bool has_sink = c_.weights.count("sinks") != 0;
  const Real sink =
      has_sink ? static_cast<Real>(c_.weights.at("sinks").value(head)) : kMinusInfinity;

  std::vector<Real> scores;
  Real largest = sink;
  for (std::int64_t k = 0; k < lengths_[b]; ++k) {
    scores.push_back(visible(query, k) ? score(q, keys, row, head, k) : kMinusInfinity);
    largest = std::max(largest, scores.back());
  }
  const std::int64_t dim = config_.head_dim_v;
  const std::int64_t kv_head = head / (config_.num_attention_heads / config_.num_key_value_heads);
  lse_.at(row, head) = kMinusInfinity;
  if (largest == kMinusInfinity) return;  // sees nothing: output 0
  Real total = has_sink ? std::exp(sink - largest) : 0;
  for (Real& s : scores) {
    s = std::exp(s - largest);
    total += s;
  }
  lse_.at(row, head) = largest + std::log(total);
  for (std::int64_t d = 0; d < dim; ++d) {
    Real sum = 0;
    for (std::size_t k = 0; k < scores.size(); ++k) {
      const std::int64_t key = key_begins_[b] + static_cast<std::int64_t>(k);
      if (scores[k] > 0) sum += scores[k] * values.at(key, kv_head * dim + d);
    }
    attn_out_.at(row, head * dim + d) = sum / total;
  }
}

void Evaluation::attend_all(const Matrix& q, const Matrix& keys, const Matrix& values) {
  const auto tokens = static_cast<std::int64_t>(rows_.size());
  lse_ = Matrix(tokens, config_.num_attention_heads);
  attn_out_ = Matrix(tokens, config_.num_attention_heads * config_.head_dim_v);
  for (std::int64_t t = 0; t < tokens; ++t) {
    for (std::int64_t h = 0; h < config_.num_attention_heads; ++h) attend(q, keys, values, t, h);
  }
  keep(Stage::kLse, lse_);
  keep(Stage::kAttnOut, attn_out_);
}

void Evaluation::keep(Stage stage, const Matrix& matrix) {
  const std::vector<double> values(matrix.data.begin(), matrix.data.end());
  trace_[stage] = Tensor::from_values(ElementType::kFloat64, stage_shape(c_, stage), values);
}

/// The values of a stage that are about to be rounded to codes: the first evaluation's where the
/// two agree, and `own` otherwise.
Matrix Evaluation::before_codes(Stage stage, const Matrix& own) const {
  if (first_ == nullptr || !first_->has(stage)) return own;
  Trace one;
  one[stage] = (*first_)[stage];
  if (!agree(one, trace_).agreed()) return own;
  return decoded(one[stage], own.rows, own.cols);
}

Trace Evaluation::run() {
  const auto tokens = static_cast<std::int64_t>(rows_.size());
  const KvCache& cache = c_.cache;
  if (config_.entry_point == EntryPoint::kAttention) {
    attend_all(decoded(c_.q, tokens, config_.num_attention_heads * config_.head_dim),
               whole_cache(cache.k, cache.k_scale, nullptr, config_.head_dim),
               whole_cache(cache.v, cache.v_scale, nullptr, config_.head_dim_v));
    return std::move(trace_);
  }
  const bool forward = config_.entry_point == EntryPoint::kForward;
  const Matrix x = decoded(c_.x, tokens, config_.hidden_size);
  trace_[Stage::kFreqsCis] = second_rope_table(c_);
  Matrix k = project("k_proj", x);
  keep(Stage::kKProj, k);
  const Matrix v = project("v_proj", x);
  keep(Stage::kVProj, v);
  if (config_.use_qk_norm)
    keep(Stage::kKNorm, k = normalized(k, config_.num_key_value_heads, "k_norm.weight"));
  keep(Stage::kKRope, k = rotated(k, config_.num_key_value_heads));
  const bool codes = element_size(config_.kv_cache.dtype) == 1;
  const Matrix new_keys = codes ? before_codes(Stage::kKRope, k) : k;
  const Matrix new_values = codes ? before_codes(Stage::kVProj, v) : v;
  const Matrix keys = whole_cache(cache.k, cache.k_scale, &new_keys, config_.head_dim);
  const Matrix values = whole_cache(cache.v, cache.v_scale, &new_values, config_.head_dim);
  keep(Stage::kCacheK, keys);
  keep(Stage::kCacheV, values);
  if (!forward) return std::move(trace_);

  Matrix q = project("q_proj", x);
  keep(Stage::kQProj, q);
  if (config_.use_qk_norm)
    keep(Stage::kQNorm, q = normalized(q, config_.num_attention_heads, "q_norm.weight"));
  keep(Stage::kQRope, q = rotated(q, config_.num_attention_heads));
  attend_all(q, keys, values);
  const bool quantised = config_.quant && config_.quant->activation != ActivationQuant::kNone;
  keep(Stage::kOut,
       project("o_proj", quantised ? before_codes(Stage::kAttnOut, attn_out_) : attn_out_));
  return std::move(trace_);
}

}  // namespace

Trace evaluate_second(const Case& c) { return Evaluation(c, nullptr).run(); }

Trace evaluate_second(const Case& c, const Trace& first) { return Evaluation(c, &first).run(); }

}  // namespace attn::golden
