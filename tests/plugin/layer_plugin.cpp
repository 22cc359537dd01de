// A whole layer as a plug-in, float32, as plain as can be. The options say where it begins and what
// it writes: "STEP STAGES", and a third word plants a mistake in that stage.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "harness/backends/attn_plugin.h"

namespace {

using Row = std::vector<float>;

std::int32_t g_first_step = 0;
std::uint32_t g_stages = 0;
int g_mistake = -1;

int create(const char* options, void**, char* message) {
  unsigned stages = 0;
  if (std::sscanf(options, "%d-%x-%d", &g_first_step, &stages, &g_mistake) < 2) {
    std::snprintf(message, ATTN_MESSAGE_SIZE, "write STEP-STAGES");
    return ATTN_ERROR;
  }
  g_stages = stages;
  return ATTN_OK;
}

int query(void*, const attn_config* c, attn_capability* capability, char* message) {
  const bool float32 = c->dtype.code == 2 && c->dtype.bits == 32;
  const bool cache32 = c->cache_dtype.code == 2 && c->cache_dtype.bits == 32;
  const bool plain_mask = c->mask == ATTN_MASK_NULL ||
                          (c->mask == ATTN_MASK_CAUSAL && c->mask_align == ATTN_ALIGN_BOTTOM_RIGHT);
  const bool simple = c->clip_weights == 0 && c->clip_activations == 0 && !c->quantised &&
                      c->num_devices == 1 && c->softcap == 0 && !c->has_sinks;
  if (!float32 || !cache32 || !plain_mask || !simple) {
    std::snprintf(message, ATTN_MESSAGE_SIZE, "only plain float32 layers");
    return ATTN_UNSUPPORTED;
  }
  capability->first_step = g_first_step;
  capability->stages = g_stages;
#if ATTN_PLUGIN_ABI_MINOR >= 3
  capability->modes = ATTN_MODE_REPLAY | ATTN_MODE_PADDED;
  capability->padding_rows = ATTN_PADDING_UNTOUCHED;
#endif
  return ATTN_OK;
}

/// Row i of a tensor whose inner axes are dense.
float* row(const attn_tensor* t, std::int64_t i) {
  return static_cast<float*>(attn_data(t)) + i * t->strides[0];
}

const attn_tensor* weight(const attn_call& c, const char* name) {
  for (std::int64_t i = 0; i < c.num_weights; ++i) {
    if (std::strcmp(c.weights[i].name, name) == 0) return c.weights[i].tensor;
  }
  return nullptr;
}

/// The layer, row by row; a stage that is given is read, one that is declared is written.
class Layer {
 public:
  explicit Layer(const attn_call& call) : c_(call), f_(*call.config) {}

  void run() {
    for (std::int64_t b = 0; b < c_.batch; ++b) {
      const auto* offsets = static_cast<const std::uint32_t*>(attn_data(c_.row_offsets));
      for (std::int64_t t = offsets[b]; t < offsets[b + 1]; ++t) fill(b, t, t - offsets[b]);
      for (std::int64_t t = offsets[b]; t < offsets[b + 1]; ++t) finish(b, t, offsets[b + 1]);
    }
  }

 private:
  bool given(int stage) const {
    return c_.stages[stage] != nullptr && (g_stages >> stage & 1U) == 0;
  }
  bool before(int step) const {
    return g_first_step != ATTN_FROM_ATTENTION && g_first_step <= step;
  }

  /// Passes a value on through a stage.
  Row through(int stage, std::int64_t t, Row value) const {
    attn_tensor* const tensor = c_.stages[stage];
    if (tensor == nullptr) return value;
    if (given(stage)) return Row(row(tensor, t), row(tensor, t) + tensor->strides[0]);
    if (stage == g_mistake) value[value.size() / 2] *= 1.01F;
    std::memcpy(row(tensor, t), value.data(), value.size() * sizeof(float));
    return value;
  }

  Row project(std::int64_t t, const char* name, std::int64_t first, std::int64_t width) const {
    const attn_tensor* w = weight(c_, (std::string(name) + ".weight").c_str());
    const std::int64_t skip = w == nullptr ? first : 0;
    if (w == nullptr) w = weight(c_, "qkv_proj.weight");
    const attn_tensor* const bias = weight(c_, (std::string(name) + ".bias").c_str());
    return times(row(c_.x, t), w, skip, width, bias);
  }

  static Row times(const float* x, const attn_tensor* w, std::int64_t skip, std::int64_t width,
                   const attn_tensor* bias) {
    Row y(static_cast<std::size_t>(width));
    for (std::int64_t n = 0; n < width; ++n) {
      float sum = 0;
      for (std::int64_t k = 0; k < w->shape[1]; ++k) sum += x[k] * row(w, skip + n)[k];
      if (bias != nullptr) sum += *row(bias, n);
      y[static_cast<std::size_t>(n)] = sum;
    }
    return y;
  }

  void norm(Row& value, const char* name) const {
    const attn_tensor* const w = weight(c_, name);
    for (std::size_t first = 0; first < value.size(); first += D()) {
      float squares = 0;
      for (std::size_t d = 0; d < D(); ++d) squares += value[first + d] * value[first + d];
      const float scale =
          1.0F / std::sqrt(squares / static_cast<float>(D()) + static_cast<float>(f_.rms_norm_eps));
      for (std::size_t d = 0; d < D(); ++d) {
        value[first + d] *= scale * *row(w, static_cast<std::int64_t>(d));
      }
    }
  }

  void rotate(Row& value, std::int64_t position) const {
    const float* const table = row(c_.freqs_cis, position);
    const auto rotary = static_cast<std::size_t>(f_.rotary_dim);
    const std::size_t skip = f_.rotary_last ? D() - rotary : 0;
    for (std::size_t first = skip; first < value.size(); first += D()) {
      for (std::size_t j = 0; j < rotary / 2; ++j) {
        float& a = value[first + (f_.rope_interleaved ? 2 * j : j)];
        float& b = value[first + (f_.rope_interleaved ? 2 * j + 1 : j + rotary / 2)];
        const float cosine = table[2 * j], sine = table[2 * j + 1], old = a;
        a = old * cosine - b * sine;
        b = old * sine + b * cosine;
      }
    }
  }

  float* slot(const attn_tensor* pool, std::int64_t b, std::int64_t p) const {
    const auto* pages =
        static_cast<const std::uint32_t*>(attn_data(c_.page_table)) + b * c_.page_table->strides[0];
    return row(pool, pages[p / f_.page_size]) + p % f_.page_size * pool->strides[1];
  }

  /// Keys and values of row t, the i-th new one of its sequence, and its query.
  void fill(std::int64_t b, std::int64_t t, std::int64_t i) {
    if (g_first_step == ATTN_FROM_ATTENTION || g_first_step == ATTN_FROM_OUTPUT) return;
    const auto* cached = static_cast<const std::uint32_t*>(attn_data(c_.cached_lengths));
    const std::int64_t position = cached[b] + i;
    const std::int64_t q_width = f_.num_heads * f_.head_dim,
                       k_width = f_.num_kv_heads * f_.head_dim;
    Row q, k, v;
    if (g_first_step == ATTN_FROM_INPUTS) {
      if (f_.entry_point == ATTN_ENTRY_FORWARD) q = project(t, "q_proj", 0, q_width);
      k = project(t, "k_proj", q_width, k_width);
      v = project(t, "v_proj", q_width + k_width, k_width);
    }
    q = through(ATTN_STAGE_Q_PROJ, t, std::move(q));
    k = through(ATTN_STAGE_K_PROJ, t, std::move(k));
    v = through(ATTN_STAGE_V_PROJ, t, std::move(v));
    if (f_.use_qk_norm) {
      if (before(ATTN_FROM_NORM)) {
        if (!q.empty()) norm(q, "q_norm.weight");
        norm(k, "k_norm.weight");
      }
      q = through(ATTN_STAGE_Q_NORM, t, std::move(q));
      k = through(ATTN_STAGE_K_NORM, t, std::move(k));
    }
    if (before(ATTN_FROM_ROPE)) {
      if (!q.empty()) rotate(q, position);
      rotate(k, position);
    }
    queries_.push_back(through(ATTN_STAGE_Q_ROPE, t, std::move(q)));
    k = through(ATTN_STAGE_K_ROPE, t, std::move(k));
    if ((g_stages >> ATTN_STAGE_CACHE_K & 1U) == 0) return;
    if (g_mistake == ATTN_STAGE_CACHE_K) k[0] += 0.5F;
    std::memcpy(slot(c_.k_cache, b, position), k.data(), k.size() * sizeof(float));
    std::memcpy(slot(c_.v_cache, b, position), v.data(), v.size() * sizeof(float));
  }

  void finish(std::int64_t b, std::int64_t t, std::int64_t end) {
    if (f_.entry_point == ATTN_ENTRY_MATERIALIZE) return;
    if ((g_stages & (1U << ATTN_STAGE_LSE | 1U << ATTN_STAGE_ATTN_OUT | 1U << ATTN_STAGE_OUT)) ==
        0) {
      return;
    }
    Row attended;
    if (g_first_step != ATTN_FROM_OUTPUT) attended = attend(b, t, end);
    attended = through(ATTN_STAGE_ATTN_OUT, t, std::move(attended));
    if ((g_stages >> ATTN_STAGE_OUT & 1U) == 0) return;
    if (f_.entry_point != ATTN_ENTRY_FORWARD) return;
    through(ATTN_STAGE_OUT, t,
            times(attended.data(), weight(c_, "o_proj.weight"), 0, f_.hidden_size, nullptr));
  }

  Row attend(std::int64_t b, std::int64_t t, std::int64_t end) const {
    const float* const q = c_.q != nullptr && g_first_step == ATTN_FROM_ATTENTION
                               ? row(c_.q, t)
                               : queries_[static_cast<std::size_t>(t)].data();
    const std::int64_t keys = static_cast<const std::uint32_t*>(attn_data(c_.key_lengths))[b];
    const std::int64_t seen = f_.mask == ATTN_MASK_CAUSAL ? keys - end + t + 1 : keys;
    Row out(static_cast<std::size_t>(f_.num_heads * f_.head_dim_v));
    Row lse(static_cast<std::size_t>(f_.num_heads));
    for (std::int64_t h = 0; h < f_.num_heads; ++h) {
      const std::int64_t kv = h / (f_.num_heads / f_.num_kv_heads);
      std::vector<float> scores;
      float max = -INFINITY, sum = 0;
      for (std::int64_t p = 0; p < seen; ++p) {
        const float* const k = slot(c_.k_cache, b, p) + kv * f_.head_dim;
        float score = 0;
        for (std::int64_t d = 0; d < f_.head_dim; ++d) score += q[h * f_.head_dim + d] * k[d];
        scores.push_back(score * static_cast<float>(f_.scale));
        max = std::max(max, scores.back());
      }
      for (float& score : scores) sum += score = std::exp(score - max);
      for (std::int64_t p = 0; p < seen; ++p) {
        const float* const v = slot(c_.v_cache, b, p) + kv * f_.head_dim_v;
        for (std::int64_t d = 0; d < f_.head_dim_v; ++d) {
          out[static_cast<std::size_t>(h * f_.head_dim_v + d)] +=
              scores[static_cast<std::size_t>(p)] / sum * v[d];
        }
      }
      lse[static_cast<std::size_t>(h)] = seen > 0 ? max + std::log(sum) : -INFINITY;
    }
    through(ATTN_STAGE_LSE, t, lse);
    return out;
  }

  std::size_t D() const { return static_cast<std::size_t>(f_.head_dim); }

  const attn_call& c_;
  const attn_config& f_;
  std::vector<Row> queries_;  ///< of every row so far
};

int run(void*, void*, const attn_call* call, char*) {
  Layer(*call).run();
  return ATTN_OK;
}

}  // namespace

extern "C" const attn_plugin* attn_plugin_entry(void) {
  static const attn_plugin plugin = {ATTN_PLUGIN_VERSION,
                                     "layer",
                                     "a whole float32 layer",
                                     create,
                                     nullptr,
                                     query,
                                     nullptr,
                                     run,
                                     nullptr};
  return &plugin;
}
