// A plug-in that attends over tensors in any layout, every element through its own strides, with
// one mistake of memory switched on: "fault=ID" (harness/faults/memory_faults.h), or none. Its
// formulas are in double and plain; what is tested is where it reads and writes.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "harness/backends/attn_plugin.h"
#include "harness/faults/memory_faults.h"
#include "reference/core/element.h"

namespace {

using attn::ElementType;

/// The one fault that is on; calls never overlap.
std::string g_fault = "none";

bool is_on(const char* id) { return g_fault == id; }

ElementType type_of(attn_dtype dtype) {
  switch (dtype.code) {
    case 4:
      return ElementType::kBFloat16;
    case 10:
      return ElementType::kFloat8E4M3FN;
    case 11:
      return ElementType::kFloat8E4M3FNUZ;
    case 12:
      return ElementType::kFloat8E5M2;
    default:
      return dtype.bits == 64   ? ElementType::kFloat64
             : dtype.bits == 32 ? ElementType::kFloat32
                                : ElementType::kFloat16;
  }
}

/// A tensor as the kernel addresses it. The strides may be wrong on purpose.
struct View {
  const attn_tensor* tensor = nullptr;
  std::int64_t strides[4] = {};
  bool narrow = false;  ///< offsets in 32 bits

  View() = default;
  explicit View(const attn_tensor* t) : tensor(t) {
    for (int axis = 0; axis < t->ndim; ++axis) strides[axis] = t->strides[axis];
  }

  std::byte* at(std::int64_t i, std::int64_t j = 0, std::int64_t k = 0, std::int64_t l = 0) const {
    std::int64_t offset = i * strides[0] + j * strides[1] + k * strides[2] + l * strides[3];
    if (narrow) offset = static_cast<std::int32_t>(static_cast<std::uint64_t>(offset));
    auto* const base =
        static_cast<std::byte*>(is_on("byte_offset_ignored") ? tensor->data : attn_data(tensor));
    return base + offset * (tensor->dtype.bits / 8);
  }

  double value(std::int64_t i, std::int64_t j = 0, std::int64_t k = 0, std::int64_t l = 0) const {
    std::uint64_t code = 0;
    std::memcpy(&code, at(i, j, k, l), tensor->dtype.bits / 8);
    return attn::decode(type_of(tensor->dtype), code);
  }
};

void dense(View& view) {
  std::int64_t stride = 1;
  for (int axis = view.tensor->ndim - 1; axis >= 0; --axis) {
    view.strides[axis] = stride;
    stride *= view.tensor->shape[axis];
  }
}

std::uint32_t index_of(const View& view, std::int64_t i, std::int64_t j = 0) {
  std::uint32_t index = 0;
  std::memcpy(&index, view.at(i, j), sizeof(index));
  return index;
}

volatile std::byte g_sink;
void touch(const std::byte* at) { g_sink = *at; }

struct Range {
  std::int64_t begin = 0, end = 0;
};

/// Softmax over a part of the keys, before it is divided by its denominator.
struct Part {
  double max = -std::numeric_limits<double>::infinity();
  double sum = 0.0;
  std::vector<double> out;
};

class Kernel {
 public:
  explicit Kernel(const attn_call& call)
      : c_(call),
        f_(*call.config),
        q_(call.q),
        k_(call.k_cache),
        v_(call.v_cache),
        pages_(call.page_table),
        out_(call.attn_out),
        lse_(call.lse) {
    if (c_.k_scale != nullptr) k_scale_ = View(c_.k_scale);
    if (c_.v_scale != nullptr) v_scale_ = View(c_.v_scale);
    if (c_.mask != nullptr) mask_ = View(c_.mask);
    spoil_addresses();
  }

  void run() {
    const View offsets(c_.row_offsets), lengths(c_.key_lengths);
    for (std::int64_t b = 0; b < c_.batch; ++b) {
      const std::int64_t begin = index_of(offsets, b), end = index_of(offsets, b + 1);
      keys_ = index_of(lengths, b);
      if (is_on("page_prefetch_past_row")) prefetch(b);
      for (std::int64_t t = begin; t < end; ++t) {
        const bool top_left = f_.mask_align == ATTN_ALIGN_TOP_LEFT;
        const std::int64_t position = top_left ? t - begin : keys_ - (end - begin) + (t - begin);
        for (std::int64_t h = 0; h < f_.num_heads; ++h) attend(b, t, h, visible(position));
      }
    }
    finish();
  }

 private:
  void spoil_addresses() {
    const std::int64_t heads = f_.num_heads, channels = f_.head_dim;
    const bool heads_first = c_.k_cache->strides[2] > c_.k_cache->strides[1];
    if (is_on("dense_offset_32_bit")) q_.narrow = out_.narrow = true;
    if (is_on("pool_offset_32_bit")) k_.narrow = v_.narrow = true;
    if (is_on("hnd_as_nhd") && heads_first) {
      std::swap(k_.strides[1], k_.strides[2]);
      std::swap(v_.strides[1], v_.strides[2]);
    }
    if (is_on("interleaved_offset_dropped") && c_.v_cache->data == c_.k_cache->data) {
      v_.tensor = c_.k_cache;
    }
    if (is_on("fused_qkv_as_dense")) q_.strides[0] = heads * channels;
    if (is_on("transposed_as_dense") && q_.strides[1] > q_.strides[0]) {
      dense(q_);
    }
    if (is_on("channel_stride_one")) q_.strides[2] = k_.strides[3] = v_.strides[3] = 1;
    if (is_on("page_stride_of_one_layer")) {
      k_.strides[0] = c_.k_cache->shape[1] * std::min(k_.strides[1], k_.strides[1]);
      v_.strides[0] = c_.v_cache->shape[1] * v_.strides[1];
    }
    if (is_on("v_strides_of_k")) std::copy(k_.strides, k_.strides + 4, v_.strides);
    if (is_on("page_table_dense")) dense(pages_);
    if (is_on("mask_dense") && mask_.tensor != nullptr) dense(mask_);
    if (is_on("scale_dense")) {
      for (View* scale : {&k_scale_, &v_scale_}) {
        if (scale->tensor != nullptr) dense(*scale);
      }
    }
    if (is_on("lse_dense")) dense(lse_);
    if (is_on("out_strides_swapped") && out_.strides[1] > out_.strides[0]) dense(out_);
  }

  /// The keys that a query at `position` may see.
  Range visible(std::int64_t position) const {
    std::int64_t first = 0, end = keys_;
    switch (f_.mask) {
      case ATTN_MASK_CAUSAL:
        end = std::min(end, position + 1);
        break;
      case ATTN_MASK_CHUNKED_CAUSAL:
        // A position before the first key belongs to a chunk before it.
        first = position < 0 ? end : position / f_.chunk_size * f_.chunk_size;
        end = std::min(end, position + 1);
        break;
      case ATTN_MASK_SLIDING_WINDOW_CAUSAL:
        first = std::max<std::int64_t>(0, position - f_.window_size + 1);
        end = std::min(end, position + 1);
        break;
      case ATTN_MASK_SLIDING_WINDOW_NONCAUSAL:
        first = std::max<std::int64_t>(0, position - f_.window_size + 1);
        break;
      default:
        break;
    }
    return {first, std::max(first, end)};
  }

  std::int64_t page_of(std::int64_t b, std::int64_t p) const {
    return index_of(pages_, b, p / f_.page_size);
  }

  /// Fetches the page after the last one too, as a pipelined loop may.
  void prefetch(std::int64_t b) const {
    const std::int64_t used = (keys_ + f_.page_size - 1) / f_.page_size;
    for (std::int64_t i = 0; i <= used; ++i) touch(k_.at(index_of(pages_, b, i)));
  }

  double scale_of(const View& scale, std::int64_t page, std::int64_t slot, std::int64_t kv) const {
    if (scale.tensor == nullptr) return 1.0;
    if (scale.tensor->ndim == 3) return scale.value(page, slot, kv);
    return scale.tensor->ndim == 1 ? scale.value(kv) : scale.value(0);
  }

  double score(std::int64_t b, std::int64_t t, std::int64_t h, std::int64_t p) const {
    const std::int64_t kv = h / (f_.num_heads / f_.num_kv_heads);
    const std::int64_t page = page_of(b, p), slot = p % f_.page_size;
    double dot = 0.0;
    for (std::int64_t d = 0; d < f_.head_dim; ++d) {
      dot += q_.value(t, h, d) * k_.value(page, slot, kv, d);
    }
    double s = f_.scale * dot * scale_of(k_scale_, page, slot, kv);
    if (f_.softcap != 0.0) s = f_.softcap * std::tanh(s / f_.softcap);
    if (f_.mask == ATTN_MASK_TENSOR) s += mask_.value(t, p);
    return s;
  }

  Part attend_part(std::int64_t b, std::int64_t t, std::int64_t h, Range keys) const {
    const std::int64_t kv = h / (f_.num_heads / f_.num_kv_heads);
    Part part;
    part.out.assign(static_cast<std::size_t>(f_.head_dim_v), 0.0);
    std::vector<double> scores;
    for (std::int64_t p = keys.begin; p < keys.end; ++p) {
      scores.push_back(score(b, t, h, key(p)));
      part.max = std::max(part.max, scores.back());
    }
    if (part.max == -std::numeric_limits<double>::infinity()) return part;
    // A masked slot has probability 0, but 0 times NaN is NaN.
    const std::int64_t whole_page = (keys.end + f_.page_size - 1) / f_.page_size * f_.page_size;
    const std::int64_t end = is_on("tail_slots_read") && keys.end == keys_ ? whole_page : keys.end;
    for (std::int64_t p = keys.begin; p < end; ++p) {
      const double weight =
          p < keys.end ? std::exp(scores[static_cast<std::size_t>(p - keys.begin)] - part.max)
                       : 0.0;
      part.sum += weight;
      const std::int64_t page = page_of(b, key(p)), slot = key(p) % f_.page_size;
      const double scaled = weight * scale_of(v_scale_, page, slot, kv);
      // Hidden keys may hold anything.
      if (weight == 0.0 && p < keys.end) continue;
      for (std::int64_t d = 0; d < f_.head_dim_v; ++d) {
        part.out[static_cast<std::size_t>(d)] += scaled * v_.value(page, slot, kv, d);
      }
    }
    return part;
  }

  /// The key that is read for key p: itself, but for the last of a tile of one.
  std::int64_t key(std::int64_t p) const {
    constexpr std::int64_t kTile = 32;
    const bool is_broadcast = f_.num_kv_heads > 1 && c_.k_cache->strides[2] == 0;
    if (!is_on("broadcast_tail_of_one") || !is_broadcast) return p;
    return keys_ % kTile == 1 && p == keys_ - 1 && p > 0 ? p - 1 : p;
  }

  void attend(std::int64_t b, std::int64_t t, std::int64_t h, Range keys) {
    // Two parts where there are keys enough, merged as split-KV kernels do.
    constexpr std::int64_t kSplitFrom = 16;
    const bool is_split = keys.end - keys.begin >= kSplitFrom;
    const std::int64_t middle = is_split ? (keys.begin + keys.end) / 2 : keys.end;
    std::vector<Part> parts = {attend_part(b, t, h, {keys.begin, middle})};
    if (is_split) parts.push_back(attend_part(b, t, h, {middle, keys.end}));
    double max = -std::numeric_limits<double>::infinity();
    for (const Part& part : parts) max = std::max(max, part.max);
    if (f_.has_sinks != 0) max = std::max(max, View(c_.sinks).value(h));
    double sum = 0.0;
    std::vector<double> out(static_cast<std::size_t>(f_.head_dim_v), 0.0);
    if (max != -std::numeric_limits<double>::infinity()) {
      if (f_.has_sinks != 0) sum = std::exp(View(c_.sinks).value(h) - max);
      for (const Part& part : parts) {
        const double weight = std::exp(part.max - max);
        sum += weight * part.sum;
        for (std::size_t d = 0; d < out.size(); ++d) out[d] += weight * part.out[d];
      }
      for (double& o : out) o /= sum;
    }
    store(t, h, out, max + std::log(sum), is_split);
  }

  void store(std::int64_t t, std::int64_t h, const std::vector<double>& out, double lse,
             bool is_split) const {
    View to = out_;
    if (is_on("combine_one_stride") && is_split) to.strides[0] = f_.num_heads * to.strides[1];
    for (std::size_t d = 0; d < out.size(); ++d) {
      const auto channel = static_cast<std::int64_t>(d);
      const auto value = static_cast<float>(out[d]);
      std::memcpy(to.at(t, h, channel), &value, sizeof(value));
    }
    if (is_on("out_rows_of_eight")) {
      const float zero = 0.0F;
      for (std::int64_t d = f_.head_dim_v; d % 8 != 0; ++d) {
        std::memcpy(to.at(t, h, d), &zero, sizeof(zero));
      }
    }
    if (is_on("q_rows_of_eight") && f_.head_dim % 8 != 0) {
      touch(q_.at(t, h, f_.head_dim / 8 * 8 + 7));
    }
    const auto value = static_cast<float>(lse);
    std::memcpy(lse_.at(t, h), &value, sizeof(value));
  }

  /// Mistakes that come once a call.
  void finish() const {
    if (c_.tokens == 0) return;
    if (is_on("workspace_past_end")) {
      static_cast<volatile char*>(c_.workspace)[c_.workspace_bytes] = 0;
    }
    if (is_on("q_scaled_in_place")) {
      volatile std::byte& first = *q_.at(0, 0, 0);
      const std::byte old = first;
      first = old ^ std::byte{1};
      first = old;
    }
    if (is_on("offsets_past_end")) touch(View(c_.row_offsets).at(c_.batch + 1));
  }

  const attn_call& c_;
  const attn_config& f_;
  View q_, k_, v_, pages_, out_, lse_, k_scale_, v_scale_, mask_;
  std::int64_t keys_ = 0;
};

int create(const char* options, void** self, char* message) {
  *self = nullptr;
  const std::string text = options;
  const std::string prefix = "fault=";
  g_fault = text.starts_with(prefix) ? text.substr(prefix.size()) : text;
  if (g_fault.empty()) g_fault = "none";
  const auto faults = attn::harness::memory_faults();
  const bool is_known =
      g_fault == "none" || std::any_of(faults.begin(), faults.end(),
                                       [](const auto& fault) { return fault.id == g_fault; });
  if (is_known) return ATTN_OK;
  std::snprintf(message, ATTN_MESSAGE_SIZE, "there is no fault \"%s\"", g_fault.c_str());
  return ATTN_ERROR;
}

int query(void*, const attn_config*, attn_capability* capability, char*) {
  capability->layouts = ATTN_LAYOUT_ANY;
  return ATTN_OK;
}

int plan(void*, const attn_call*, void**, std::size_t* workspace_bytes, char*) {
  *workspace_bytes = 1 << 12;
  return ATTN_OK;
}

int run(void*, void*, const attn_call* call, char*) {
  Kernel(*call).run();
  return ATTN_OK;
}

}  // namespace

extern "C" const attn_plugin* attn_plugin_entry(void) {
  static const attn_plugin plugin = {ATTN_PLUGIN_VERSION,
                                     "faulty_memory",
                                     "attention in any layout, with a planted mistake of memory",
                                     create,
                                     nullptr,
                                     query,
                                     plan,
                                     run,
                                     nullptr};
  return &plugin;
}
