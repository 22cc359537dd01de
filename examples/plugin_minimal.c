/* A whole plug-in: causal attention over a paged cache, float32.
 *   cc -shared -fPIC -O2 -I harness/backends examples/plugin_minimal.c -o plugin.so -lm
 *   attn-compare verify data/golden/core-*.h5 --backend ./plugin.so --allow-unsupported */
#include <math.h>
#include <stdio.h>
#include "attn_plugin.h"

static int query(void *self, const attn_config *c, attn_capability *capability, char *message) {
  (void)self, (void)capability; /* nothing declared: judged as float32 throughout */
  const char *no = c->dtype.code != 2 || c->dtype.bits != 32     ? "only float32"
                   : c->cache_dtype.bits != 32                   ? "only a float32 cache"
                   : c->mask != ATTN_MASK_CAUSAL || c->mask_align ? "only causal, bottom right"
                   : c->softcap != 0 || c->has_sinks ? "no softcap, no sinks" : NULL;
  if (no) snprintf(message, ATTN_MESSAGE_SIZE, "%s", no);
  return no ? ATTN_UNSUPPORTED : ATTN_OK;
}

static float *at(const attn_tensor *t, int64_t i, int64_t j, int64_t k) {
  const int64_t inner = t->ndim > 2 ? k * t->strides[2] : 0;
  return (float *)attn_data(t) + i * t->strides[0] + j * t->strides[1] + inner;
}

static int run(void *self, void *plan, const attn_call *c, char *message) {
  (void)self, (void)plan, (void)message;
  const attn_config *f = c->config;
  const uint32_t *offsets = attn_data(c->row_offsets), *lengths = attn_data(c->key_lengths);
  for (int64_t b = 0; b < c->batch; ++b) {
    const uint32_t *pages = (uint32_t *)at(c->page_table, b, 0, 0);
    for (int64_t t = offsets[b]; t < offsets[b + 1]; ++t) {
      const int64_t seen = (int64_t)lengths[b] - offsets[b + 1] + t + 1; /* keys, causal */
      for (int64_t h = 0; h < f->num_heads; ++h) {
        const int64_t kv = h / (f->num_heads / f->num_kv_heads);
        float *q = at(c->q, t, h, 0), *out = at(c->attn_out, t, h, 0);
        float max = -INFINITY, sum = 0; /* online softmax, one key at a time */
        for (int64_t d = 0; d < f->head_dim_v; ++d) out[d] = 0;
        for (int64_t p = 0; p < seen; ++p) {
          const int64_t page = pages[p / f->page_size], slot = p % f->page_size;
          float *k = at(c->k_cache, page, slot, kv), *v = at(c->v_cache, page, slot, kv);
          float score = 0;
          for (int64_t d = 0; d < f->head_dim; ++d) score += q[d] * k[d];
          score *= (float)f->scale;
          const float top = score > max ? score : max;
          const float old = expf(max - top), now = expf(score - top);
          sum = sum * old + now;
          for (int64_t d = 0; d < f->head_dim_v; ++d) out[d] = out[d] * old + now * v[d];
          max = top;
        }
        for (int64_t d = 0; d < f->head_dim_v && seen > 0; ++d) out[d] /= sum;
        *at(c->lse, t, h, 0) = seen > 0 ? max + logf(sum) : -INFINITY;
      }
    }
  }
  return ATTN_OK;
}

const attn_plugin *attn_plugin_entry(void) {
  static const attn_plugin plugin = {ATTN_PLUGIN_VERSION, .name = "minimal",
                                     .summary = "causal float32", .query = query, .run = run};
  return &plugin;
}
