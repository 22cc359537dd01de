#include "golden/second_evaluation.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "golden/second_rope_table.h"
#include "reference/core/error.h"

namespace attn::golden {
namespace {

using Real = long double;
constexpr Real kMinusInfinity = -std::numeric_limits<Real>::infinity();

struct Matrix {
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::vector<Real> data;

  Matrix() = default;
  Matrix(std::int64_t r, std::int64_t n)
      : rows(r), cols(n), data(static_cast<std::size_t>(r * n)) {}
  Real& at(std::int64_t r, std::int64_t n) { return data[static_cast<std::size_t>(r * cols + n)]; }
  Real at(std::int64_t r, std::int64_t n) const {
    return data[static_cast<std::size_t>(r * cols + n)];
  }
};

Matrix decoded(const Tensor& tensor, std::int64_t rows, std::int64_t cols) {
  Matrix out(rows, cols);
  for (std::int64_t i = 0; i < rows * cols; ++i) {
    out.data[static_cast<std::size_t>(i)] = tensor.value(i);
  }
  return out;
}

void clip(Matrix& m, Real bound) {
  for (Real& v : m.data) v = std::min(std::max(v, -bound), bound);
}

/// out[t, o] = sum_i x[t, i] * w[first + o, i] for o in 0 .. width-1.
Matrix times_transposed(const Matrix& x, const Matrix& w, std::int64_t first, std::int64_t width) {
  Matrix out(x.rows, width);
  for (std::int64_t t = 0; t < x.rows; ++t) {
    for (std::int64_t o = 0; o < width; ++o) {
      for (std::int64_t i = 0; i < x.cols; ++i) out.at(t, o) += x.at(t, i) * w.at(first + o, i);
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
  explicit Evaluation(const Case& c);
  Trace run();

 private:
  Matrix project(const char* name, std::int64_t first_stacked_row, std::int64_t width) const;
  Matrix normalized(const Matrix& in, std::int64_t heads, const char* gamma) const;
  Matrix rotated(const Matrix& in, std::int64_t heads) const;
  Matrix whole_cache(const Tensor& pool, const Matrix* new_rows, std::int64_t dim) const;
  bool visible(std::int64_t query, std::int64_t key) const;
  Real score(const Matrix& q, const Matrix& keys, std::int64_t row, std::int64_t head,
             std::int64_t key) const;
  void attend(const Matrix& q, const Matrix& keys, const Matrix& values, std::int64_t row,
              std::int64_t head);
  void attend_all(const Matrix& q, const Matrix& keys, const Matrix& values);
  void keep(Stage stage, const Matrix& matrix);

  const Case& c_;
  const AttentionConfig& config_;
  std::vector<Row> rows_;
  std::vector<std::int64_t> lengths_;     ///< keys per sequence after the call
  std::vector<std::int64_t> cached_;      ///< keys per sequence that the cache holds before it
  std::vector<std::int64_t> key_begins_;  ///< first row of a sequence in the whole cache
  std::int64_t total_keys_ = 0;
  Matrix lse_;
  Matrix attn_out_;
  Trace trace_;
};

Evaluation::Evaluation(const Case& c) : c_(c), config_(c.config) {
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

/// x * W^T + bias, clipped; W is `width` rows of the stacked weight from `first_stacked_row`, or
/// the projection's own.
Matrix Evaluation::project(const char* name, std::int64_t first_stacked_row,
                           std::int64_t width) const {
  const std::string prefix = name;
  const Tensor& stored =
      c_.weights.at(config_.stacked_qkv ? "qkv_proj.weight" : prefix + ".weight");
  Matrix w = decoded(stored, stored.dim(0), config_.hidden_size);
  if (config_.clip_qkv.value_or(0) > 0) clip(w, *config_.clip_qkv);
  const Matrix x = decoded(c_.x, static_cast<std::int64_t>(rows_.size()), config_.hidden_size);
  Matrix out = times_transposed(x, w, config_.stacked_qkv ? first_stacked_row : 0, width);
  if (config_.has_bias) {
    const Tensor& bias = c_.weights.at(prefix + ".bias");
    for (std::int64_t t = 0; t < out.rows; ++t) {
      for (std::int64_t o = 0; o < width; ++o) out.at(t, o) += bias.value(o);
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

/// All keys (or values) in logical order: what the pages hold, then the call's own rows.
Matrix Evaluation::whole_cache(const Tensor& pool, const Matrix* new_rows, std::int64_t dim) const {
  const std::int64_t width = config_.num_key_value_heads * dim;
  const std::int64_t page_size = c_.cache.page_size;
  const std::int64_t columns = c_.cache.page_table.empty() ? 0 : c_.cache.page_table.dim(1);
  Matrix out(total_keys_, width);
  for (std::size_t b = 0; b < lengths_.size(); ++b) {
    for (std::int64_t p = 0; p < cached_[b]; ++p) {
      const auto entry = static_cast<std::int64_t>(b) * columns + p / page_size;
      const auto page = static_cast<std::int64_t>(c_.cache.page_table.code(entry));
      const std::int64_t slot =
          (page * c_.cache.num_layers + c_.cache.layer) * page_size + p % page_size;
      for (std::int64_t i = 0; i < width; ++i) {
        out.at(key_begins_[b] + p, i) = pool.value(slot * width + i);
      }
    }
  }
  if (new_rows == nullptr) return out;
  for (std::size_t t = 0; t < rows_.size(); ++t) {
    const auto b = static_cast<std::size_t>(rows_[t].sequence);
    const std::int64_t to = key_begins_[b] + cached_[b] + rows_[t].index;
    for (std::int64_t i = 0; i < width; ++i) {
      out.at(to, i) = new_rows->at(static_cast<std::int64_t>(t), i);
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

Trace Evaluation::run() {
  const auto tokens = static_cast<std::int64_t>(rows_.size());
  const std::int64_t q_width = config_.num_attention_heads * config_.head_dim;
  const std::int64_t kv_width = config_.num_key_value_heads * config_.head_dim;
  if (config_.entry_point == EntryPoint::kAttention) {
    attend_all(decoded(c_.q, tokens, q_width), whole_cache(c_.cache.k, nullptr, config_.head_dim),
               whole_cache(c_.cache.v, nullptr, config_.head_dim_v));
    return std::move(trace_);
  }
  const bool forward = config_.entry_point == EntryPoint::kForward;
  trace_[Stage::kFreqsCis] = second_rope_table(c_);
  Matrix k = project("k_proj", q_width, kv_width);
  keep(Stage::kKProj, k);
  const Matrix v = project("v_proj", q_width + kv_width, kv_width);
  keep(Stage::kVProj, v);
  if (config_.use_qk_norm)
    keep(Stage::kKNorm, k = normalized(k, config_.num_key_value_heads, "k_norm.weight"));
  keep(Stage::kKRope, k = rotated(k, config_.num_key_value_heads));
  const Matrix keys = whole_cache(c_.cache.k, &k, config_.head_dim);
  const Matrix values = whole_cache(c_.cache.v, &v, config_.head_dim);
  keep(Stage::kCacheK, keys);
  keep(Stage::kCacheV, values);
  if (!forward) return std::move(trace_);

  Matrix q = project("q_proj", 0, q_width);
  keep(Stage::kQProj, q);
  if (config_.use_qk_norm)
    keep(Stage::kQNorm, q = normalized(q, config_.num_attention_heads, "q_norm.weight"));
  keep(Stage::kQRope, q = rotated(q, config_.num_attention_heads));
  attend_all(q, keys, values);
  const Matrix w = decoded(c_.weights.at("o_proj.weight"), config_.hidden_size, q_width);
  keep(Stage::kOut, times_transposed(attn_out_, w, 0, config_.hidden_size));
  return std::move(trace_);
}

}  // namespace

Trace evaluate_second(const Case& c) {
  if (c.config.quant) {
    throw Error(ErrorKind::kUnsupported, "the second evaluation covers no quantised weights",
                "quant");
  }
  if (element_size(c.config.kv_cache.dtype) < 2) {
    throw Error(ErrorKind::kUnsupported, "the second evaluation covers no fp8 cache",
                "kv_cache.dtype");
  }
  return Evaluation(c).run();
}

}  // namespace attn::golden
