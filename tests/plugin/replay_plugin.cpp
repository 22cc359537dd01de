// Causal attention, float32, that "captures" the first run on a plan and replays it: what a kernel
// in a graph does, with a copy of the call in place of the graph. The option plants a mistake.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "harness/backends/attn_plugin.h"

namespace {

std::string g_mistake;

bool is(const char* mistake) { return g_mistake == mistake; }

int create(const char* options, void**, char*) {
  g_mistake = options;
  return ATTN_OK;
}

int query(void*, const attn_config* c, attn_capability* capability, char* message) {
  const bool float32 = c->dtype.code == 2 && c->dtype.bits == 32 && c->cache_dtype.bits == 32;
  if (!float32 || c->mask != ATTN_MASK_CAUSAL || c->mask_align != ATTN_ALIGN_BOTTOM_RIGHT ||
      c->softcap != 0 || c->has_sinks) {
    std::snprintf(message, ATTN_MESSAGE_SIZE, "only plain causal float32");
    return ATTN_UNSUPPORTED;
  }
  capability->modes = ATTN_MODE_REPLAY | ATTN_MODE_PADDED;
  if (is("no_modes")) capability->modes = 0;
  if (is("only_padded")) capability->modes = ATTN_MODE_PADDED;
  if (is("only_replay")) capability->modes = ATTN_MODE_REPLAY;
  capability->padding_rows = ATTN_PADDING_UNTOUCHED;
  if (is("zero") || is("zero_declared_only")) capability->padding_rows = ATTN_PADDING_ZERO;
  if (is("finite")) capability->padding_rows = ATTN_PADDING_FINITE;
  if (is("undeclared_padding_rows")) capability->padding_rows = 9;
  return ATTN_OK;
}

/// What a graph holds: addresses, and whatever was read on the host while it was captured.
struct Plan {
  std::int64_t most_rows = 0;
  bool captured = false;
  attn_call call{};
  std::vector<std::uint32_t> offsets, lengths, pages;
};

template <typename T>
std::vector<T> values_of(const attn_tensor* t) {
  std::int64_t size = 1;
  for (int i = 0; i < t->ndim; ++i) size *= t->shape[i];
  const T* const data = static_cast<const T*>(attn_data(t));
  return {data, data + size};
}

int plan(void*, const attn_call* call, void** out, std::size_t* workspace_bytes, char*) {
  auto* const p = new Plan;
  const std::vector<std::uint32_t> offsets = values_of<std::uint32_t>(call->row_offsets);
  for (std::size_t b = 0; b + 1 < offsets.size(); ++b) {
    p->most_rows = std::max<std::int64_t>(p->most_rows, offsets[b + 1] - offsets[b]);
  }
  *workspace_bytes = sizeof(std::uint32_t);  // a counter that starts at whatever is there
  *out = p;
  return ATTN_OK;
}

float* row(const attn_tensor* t, std::int64_t i, std::int64_t j, std::int64_t k = 0) {
  const std::int64_t inner = t->ndim > 2 ? k * t->strides[2] : 0;
  return static_cast<float*>(attn_data(t)) + i * t->strides[0] + j * t->strides[1] + inner;
}

void attend_row(const attn_call& c, std::int64_t t, const std::uint32_t* pages, std::int64_t seen) {
  const attn_config& f = *c.config;
  for (std::int64_t h = 0; h < f.num_heads; ++h) {
    const std::int64_t kv = h / (f.num_heads / f.num_kv_heads);
    const float* const q = row(c.q, t, h);
    std::vector<float> out(static_cast<std::size_t>(f.head_dim_v));
    float max = -INFINITY, sum = 0;
    for (std::int64_t p = 0; p < seen; ++p) {
      const std::int64_t page = pages[p / f.page_size], slot = p % f.page_size;
      const float *const k = row(c.k_cache, page, slot, kv), *const v =
                                                                 row(c.v_cache, page, slot, kv);
      float score = 0;
      for (std::int64_t d = 0; d < f.head_dim; ++d) score += q[d] * k[d];
      score *= static_cast<float>(f.scale);
      const float top = std::max(score, max);
      const float old = std::exp(max - top), now = std::exp(score - top);
      sum = sum * old + now;
      for (std::size_t d = 0; d < out.size(); ++d) out[d] = out[d] * old + now * v[d];
      max = top;
    }
    for (std::size_t d = 0; d < out.size(); ++d) {
      row(c.attn_out, t, h)[d] = seen > 0 ? out[d] / sum : 0;
    }
    *row(c.lse, t, h) = seen > 0 ? max + std::log(sum) : -INFINITY;
  }
}

void fill_rows(const attn_call& c, std::int64_t first, float value) {
  for (std::int64_t t = first; t < c.tokens; ++t) {
    for (std::int64_t h = 0; h < c.config->num_heads; ++h) {
      std::fill_n(row(c.attn_out, t, h), c.config->head_dim_v, value);
      *row(c.lse, t, h) = value;
    }
  }
}

int run(void*, void* opaque, const attn_call* given, char* message) {
  Plan& plan = *static_cast<Plan*>(opaque);
  if (!plan.captured) {
    plan.captured = true;
    plan.call = *given;
    plan.offsets = values_of<std::uint32_t>(given->row_offsets);
    plan.lengths = values_of<std::uint32_t>(given->key_lengths);
    plan.pages = values_of<std::uint32_t>(given->page_table);
  } else if (std::memcmp(&plan.call, given, sizeof(attn_call)) != 0) {
    std::snprintf(message, ATTN_MESSAGE_SIZE, "a later call has other tensors");
    return ATTN_ERROR;
  }
  const attn_call& c = plan.call;
  auto offsets = values_of<std::uint32_t>(c.row_offsets);
  auto lengths = values_of<std::uint32_t>(c.key_lengths);
  auto pages = values_of<std::uint32_t>(c.page_table);
  if (is("offsets_kept")) offsets = plan.offsets;
  if (is("lengths_kept")) lengths = plan.lengths;
  if (is("pages_kept")) pages = plan.pages;
  const auto columns = c.page_table->shape[1];
  for (std::int64_t b = 0; b < c.batch; ++b) {
    const auto at = static_cast<std::size_t>(b);
    const std::int64_t rows = std::int64_t{offsets[at + 1]} - offsets[at];
    if (rows > plan.most_rows) {
      std::snprintf(message, ATTN_MESSAGE_SIZE, "more rows than were planned");
      return ATTN_ERROR;
    }
    for (std::int64_t i = 0; i < rows; ++i) {
      const std::int64_t seen = std::int64_t{lengths[at]} - rows + i + 1;
      attend_row(c, offsets[at] + i, pages.data() + b * columns, std::max<std::int64_t>(0, seen));
    }
  }
  const std::int64_t live = offsets[static_cast<std::size_t>(c.batch)];
  if (is("zero")) fill_rows(c, live, 0);
  if (is("finite")) fill_rows(c, live, 3);
  if (is("padding_written")) fill_rows(c, live, 0);
  return ATTN_OK;
}

void destroy_plan(void*, void* plan) { delete static_cast<Plan*>(plan); }

}  // namespace

extern "C" const attn_plugin* attn_plugin_entry(void) {
  static const attn_plugin plugin = {ATTN_PLUGIN_VERSION,
                                     "replay",
                                     "causal float32, captured and replayed",
                                     create,
                                     nullptr,
                                     query,
                                     plan,
                                     run,
                                     destroy_plan};
  return &plugin;
}
