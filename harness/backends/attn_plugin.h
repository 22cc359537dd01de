/* The C interface between attn-compare and an attention kernel in a shared library. C99, no
 * dependency. docs/plugin.md is the guide; examples/plugin_minimal.c is a whole plug-in.
 *
 * A library exports one function, attn_plugin_entry. Zero in a field of a structure that the
 * plug-in fills means "not declared", and not declared means strict. Nothing may be thrown across
 * this interface. */
#ifndef ATTN_PLUGIN_H
#define ATTN_PLUGIN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A host refuses another major version. A minor version only adds fields at the end of structures:
 * every structure begins with its size, as the side that made it was compiled. */
#define ATTN_PLUGIN_ABI_MAJOR 1
#define ATTN_PLUGIN_ABI_MINOR 3

/* What a function returns; ATTN_UNSUPPORTED and ATTN_ERROR come with a line in `message`, a buffer
 * of ATTN_MESSAGE_SIZE bytes that the host gives. */
enum { ATTN_OK = 0, ATTN_UNSUPPORTED = 1, ATTN_ERROR = 2 };
#define ATTN_MESSAGE_SIZE 512

/* ---- tensors: DLPack's numbers ------------------------------------------------------------- */

/* DLPack's type codes: 0 int, 1 unsigned, 2 float, 4 bfloat, 10 float8_e4m3fn, 11 float8_e4m3fnuz,
 * 12 float8_e5m2, 14 float8_e8m0fnu. Same layout as DLDataType. */
typedef struct attn_dtype {
  uint8_t code;
  uint8_t bits;
  uint16_t lanes;
} attn_dtype;

/* Same layout as DLTensor. Element (i0, i1, ...) of a tensor lies at
 *   (char *)data + byte_offset + (i0 * strides[0] + i1 * strides[1] + ...) * bits / 8.
 * Strides count elements and are always given; they are rarely those of a dense array. */
typedef struct attn_tensor {
  void *data;
  int32_t device_type; /* DLPack's: 1 is host memory */
  int32_t device_id;
  int32_t ndim;
  attn_dtype dtype;
  int64_t *shape;
  int64_t *strides;
  uint64_t byte_offset;
} attn_tensor;

static inline void *attn_data(const attn_tensor *t) { return (char *)t->data + t->byte_offset; }

/* ---- the problem ---------------------------------------------------------------------------- */

/* Which keys k a query at position q sees. */
enum {
  ATTN_MASK_NULL = 0,                     /* every key */
  ATTN_MASK_CAUSAL = 1,                   /* k <= q */
  ATTN_MASK_CHUNKED_CAUSAL = 2,           /* k <= q and q / chunk_size == k / chunk_size */
  ATTN_MASK_SLIDING_WINDOW_CAUSAL = 3,    /* k <= q and q - k < window_size */
  ATTN_MASK_SLIDING_WINDOW_NONCAUSAL = 4, /* k + window_size > q */
  ATTN_MASK_TENSOR = 5 /* every key; call->mask is added to the scaled and capped score */
};

/* Position of query row i of n with L keys. */
enum {
  ATTN_ALIGN_BOTTOM_RIGHT = 0, /* L - n + i; may be negative */
  ATTN_ALIGN_TOP_LEFT = 1      /* i */
};

/* What is to be computed. The score of a visible key is softcap(scale * q.k), with
 * softcap(s) = c * tanh(s / c) where c = `softcap` is not 0. */
typedef struct attn_config {
  uint32_t struct_size;
  int32_t mask;       /* ATTN_MASK_... */
  int32_t mask_align; /* ATTN_ALIGN_... */
  int32_t has_sinks;  /* one more logit for each head, in the denominator only, not scaled */
  attn_dtype dtype;   /* of the activations */
  attn_dtype cache_dtype;
  int64_t num_heads;    /* Hq; query head h reads kv head h / (Hq / Hkv) */
  int64_t num_kv_heads; /* Hkv */
  int64_t head_dim;     /* D, of q and k */
  int64_t head_dim_v;   /* Dv, of v */
  int64_t page_size;
  int64_t window_size; /* 0 where the mask has none */
  int64_t chunk_size;  /* 0 where the mask has none */
  double scale;
  double softcap;   /* 0: none */
  const char *json; /* the whole config, as docs/golden-format.md describes it */
  /* since 1.1, for plug-ins that begin before attention */
  int32_t entry_point;      /* ATTN_ENTRY_... */
  int32_t has_bias;         /* of the projections of q, k and v */
  int32_t stacked_qkv;      /* one weight qkv_proj.weight, rows of q, k and v */
  int32_t use_qk_norm;      /* root-mean-square norm of each head of q and k */
  int32_t rope_interleaved; /* 1: pairs (2j, 2j+1); 0: (j, j + rotary_dim / 2) */
  int32_t rotary_last;      /* 1: the last rotary_dim channels of a head rotate; 0: the first */
  int32_t quantised;        /* weights are codes, their format is in json */
  int32_t reserved;
  int64_t hidden_size;
  int64_t rotary_dim;
  int64_t num_devices;
  double rms_norm_eps;
  double clip_weights;     /* 0: none */
  double clip_activations; /* of the values of q, k and v; 0: none */
} attn_config;

enum {
  ATTN_ENTRY_FORWARD = 0,     /* a layer, from hidden states */
  ATTN_ENTRY_MATERIALIZE = 1, /* from hidden states to the filled cache */
  ATTN_ENTRY_ATTENTION = 2    /* from queries and a filled cache */
};

/* Steps of a layer whose results are compared, in order; a set of them is a sum of 1u << stage. */
enum {
  ATTN_STAGE_FREQS_CIS = 0, /* [positions, rotary_dim] float32: the rope table made from json */
  ATTN_STAGE_Q_PROJ = 1,    /* [tokens, Hq, D]: after projection, bias and clip */
  ATTN_STAGE_K_PROJ = 2,    /* [tokens, Hkv, D] */
  ATTN_STAGE_V_PROJ = 3,    /* [tokens, Hkv, Dv] */
  ATTN_STAGE_Q_NORM = 4,    /* with use_qk_norm only */
  ATTN_STAGE_K_NORM = 5,
  ATTN_STAGE_Q_ROPE = 6,
  ATTN_STAGE_K_ROPE = 7,
  ATTN_STAGE_CACHE_K = 8,   /* no tensor of its own: new keys written into k_cache */
  ATTN_STAGE_CACHE_V = 9,   /* likewise v_cache */
  ATTN_STAGE_LSE = 10,      /* [tokens, Hq]: log of the softmax denominator, the sink included */
  ATTN_STAGE_ATTN_OUT = 11, /* [tokens, Hq, Dv]: attention's output */
  ATTN_STAGE_OUT = 12,      /* [tokens, hidden_size]: after the output projection */
  ATTN_NUM_STAGES = 13
};

/* Where a plug-in begins. It is given every stage before and computes from there. */
enum {
  ATTN_FROM_ATTENTION = 0, /* q and a cache with every key */
  ATTN_FROM_INPUTS = 1,    /* x, the weights and the tokens cached before */
  ATTN_FROM_NORM = 2,      /* q_proj, k_proj, v_proj */
  ATTN_FROM_ROPE = 3,      /* q_norm and k_norm, without use_qk_norm q_proj and k_proj; v_proj */
  ATTN_FROM_CACHE = 4,     /* q_rope, k_rope, v_proj */
  ATTN_FROM_OUTPUT = 5     /* attn_out */
};

/* ---- what a plug-in declares ---------------------------------------------------------------- */

enum {
  ATTN_ACC_UNDECLARED = 0, /* as float32 */
  ATTN_ACC_FLOAT32 = 1,
  ATTN_ACC_FLOAT32_TENSOR_CORE = 2,
  ATTN_ACC_FLOAT16 = 3,
  ATTN_ACC_FP8_14BIT = 4,
  ATTN_ACC_FP8_14BIT_PROMOTED_128 = 5,
  ATTN_ACC_FLOAT64 = 6
};
enum { ATTN_LSE_NATURAL = 0, ATTN_LSE_BASE_2 = 1 };
enum {
  ATTN_LSE_TOKENS_HEADS = 0, /* [tokens, Hq] dense */
  ATTN_LSE_HEADS_TOKENS = 1  /* the same shape with strides {1, tokens} */
};
/* What a query row holds that sees no key. */
enum {
  ATTN_EMPTY_ROWS_EXACT = 0,     /* output 0; lse minus infinity, or the sink where there is one */
  ATTN_EMPTY_ROWS_UNTOUCHED = 1, /* nothing is written */
  ATTN_EMPTY_ROWS_FINITE = 2     /* any finite values in the output, anything in lse */
};
/* Claims, held against what the kernel does. */
enum {
  ATTN_CLAIM_DETERMINISTIC = 1,   /* equal calls give equal bits */
  ATTN_CLAIM_BATCH_INVARIANT = 2  /* a row's bits do not depend on the other rows */
};

/* How tensors may lie in memory beside what every plug-in is given: strides that differ from those
 * of a dense array for the pages of a pool that several layers share, and for a declared
 * lse_layout. A sum of these; 0: nothing else, and a case that asks for more is given as always.
 * A plug-in that declares some of them takes no case that asks for others. */
enum {
  ATTN_LAYOUT_HND = 1,             /* pages of the cache hold [heads, slots, dim] */
  ATTN_LAYOUT_KV_PAIRS = 2,        /* k_cache and v_cache lie in one allocation */
  ATTN_LAYOUT_QUERY_STRIDES = 4,   /* q is part of rows with k and v, or its heads are outermost */
  ATTN_LAYOUT_OUTPUT_STRIDES = 8,  /* heads of attn_out and lse are outermost, or as declared */
  ATTN_LAYOUT_BROADCAST = 16,      /* stride 0: heads of the cache, rows of the mask */
  ATTN_LAYOUT_GAPS = 32,           /* NaN between rows, in front of the first one */
  ATTN_LAYOUT_CHANNEL_STRIDE = 64, /* channels are not next to each other */
  ATTN_LAYOUT_LARGE = 128,         /* offsets of 2^31 elements and more */
  ATTN_LAYOUT_ONLY_HND = 256,      /* the cache must be [heads, slots, dim], and always is */
  ATTN_LAYOUT_ANY = 255            /* whatever the strides say */
};

/* What else a call may be: a sum of these in attn_capability.modes.
 *
 * ATTN_MODE_PADDED: the batch may have more sequences than ask for something. Those at its end have
 * no rows and no keys, entries of their page table name no page, and tensors have more rows than
 * row_offsets[batch]; of these the inputs hold NaN. What run() leaves there in attn_out, lse and out
 * is declared as padding_rows.
 *
 * ATTN_MODE_REPLAY, with ATTN_MODE_PADDED: run() may be called again on one plan, with the same
 * tensors at the same addresses and strides and other lengths, pages and values in them, within what
 * was planned. A plug-in that captures its work into a graph does so in the first run() on a plan
 * and launches the graph in later ones, so that it is judged as it will be used. plan() then sees
 * for each sequence the most rows and keys that it will get; where its page table has no pages for
 * these, entries name no page. */
enum {
  ATTN_MODE_GRAPH = 1, /* run() only enqueues work on `stream` and may be captured in a graph */
  ATTN_MODE_REPLAY = 2, /* since 1.3 */
  ATTN_MODE_PADDED = 4  /* since 1.3 */
};
/* What a row of a result holds that no sequence of a padded batch owns. */
enum {
  ATTN_PADDING_ZERO = 0,
  ATTN_PADDING_UNTOUCHED = 1, /* nothing is written */
  ATTN_PADDING_FINITE = 2     /* any finite values */
};

/* Filled by query(). The host zeroes it before. */
typedef struct attn_capability {
  uint32_t struct_size;
  uint32_t stages;          /* what run() writes; 0: lse and attn_out, or out from attn_out */
  attn_dtype out;           /* of attn_out; 0: float32 */
  attn_dtype lse;           /* 0: float32 */
  attn_dtype probabilities; /* P as multiplied with V; 0: float32 */
  int32_t accumulator;      /* ATTN_ACC_..., of the scores and of P*V */
  int32_t lse_base;         /* ATTN_LSE_... */
  int32_t lse_layout;       /* ATTN_LSE_... */
  int32_t empty_rows;       /* ATTN_EMPTY_ROWS_... */
  uint32_t claims;          /* a sum of ATTN_CLAIM_... */
  int32_t lse_from_rounded_probabilities; /* the denominator sums P after its rounding */
  int64_t block;            /* keys of one online-softmax step; 0: all in one */
  int64_t splits;           /* split-KV parts; 0: one */
  int64_t lanes;            /* independent partial sums of a dot product; 0: one */
  double exp_rel;           /* relative error of one exponential; 0: 2^-23 */
  uint64_t tensor_alignment; /* bytes that every tensor must be aligned to; 0: its element */
  /* since 1.1, for plug-ins that begin before attention or after it */
  int32_t first_step;            /* ATTN_FROM_... */
  int32_t projection_accumulator; /* ATTN_ACC_... */
  attn_dtype store;              /* of q_proj to k_rope; 0: float32 */
  attn_dtype cos_sin;            /* the rope table as used; 0: float32 */
  attn_dtype norm_eps;           /* type that rms_norm_eps is rounded to; 0: float32 */
  int32_t float32_frequencies;   /* rope's inverse frequencies are computed in float32 */
  int32_t rope_native;           /* the products of rope are rounded to `store` */
  int32_t round_twice;           /* rounded before the bias and again after it */
  int32_t fused_cache;           /* the cache is converted from unrounded k */
  int32_t reserved;
  double operand_roundoff;       /* extra rounding of the projections' operands: tf32 2^-11 */
  /* since 1.2 */
  attn_dtype scaling;      /* in which codes are decoded and scales multiplied; 0: float32 */
  attn_dtype partial;      /* of each device's part of `out`, before their sum; 0: float32 */
  int32_t native_weights;  /* quantised weights are first rounded to config->dtype */
  uint32_t layouts;        /* a sum of ATTN_LAYOUT_... */
  uint32_t modes;          /* a sum of ATTN_MODE_... */
  int32_t padding_rows;    /* since 1.3: ATTN_PADDING_... */
} attn_capability;

/* ---- one call -------------------------------------------------------------------------------- */

/* "q_proj.weight", "o_proj.weight_scale", ...: docs/golden-format.md, without "weights/". */
typedef struct attn_weight {
  const char *name;
  const attn_tensor *tensor;
} attn_weight;

/* Rows of all sequences lie back to back: sequence b owns rows row_offsets[b] to
 * row_offsets[b + 1] - 1 and key_lengths[b] keys. Key p of sequence b lies in page
 * page_table[b, p / page_size], slot p % page_size. Unused slots and pages hold NaN. Absent tensors
 * are NULL. Inputs must not be written. */
typedef struct attn_call {
  uint32_t struct_size;
  uint32_t reserved;
  const attn_config *config;
  int64_t batch;
  int64_t tokens;
  const attn_tensor *q;           /* [tokens, Hq, D] dtype, rope applied; NULL before that */
  const attn_tensor *k_cache;     /* [num_pages, page_size, Hkv, D] cache_dtype */
  const attn_tensor *v_cache;     /* [num_pages, page_size, Hkv, Dv] */
  const attn_tensor *k_scale;     /* fp8 caches: [], [Hkv] or [num_pages, page_size, Hkv] float32; */
  const attn_tensor *v_scale;     /*   value = code * scale */
  const attn_tensor *page_table;  /* [batch, max_pages] uint32; unused columns hold num_pages */
  const attn_tensor *row_offsets; /* [batch + 1] uint32 */
  const attn_tensor *key_lengths; /* [batch] uint32 */
  const attn_tensor *sinks;       /* [Hq], with config->has_sinks */
  const attn_tensor *mask;        /* [tokens, max keys] float32, ATTN_MASK_TENSOR */
  attn_tensor *attn_out;          /* [tokens, Hq, Dv] in the declared type; to be written */
  attn_tensor *lse;               /* [tokens, Hq]; to be written, in the declared base and layout.
                                   * Both NULL where the plug-in does not declare them. */
  void *workspace;                /* as many bytes as plan() asked for, aligned to 256 */
  size_t workspace_bytes;
  void *stream; /* where the kernel's work goes (a cudaStream_t); NULL: the default stream */
  /* since 1.1, for plug-ins that begin before attention or after it. k_cache and v_cache (and
   * scales of single tokens) are to be written where the plug-in declares their stages. */
  const attn_tensor *x;              /* [tokens, hidden_size] dtype */
  const attn_tensor *freqs_cis;      /* [positions, rotary_dim] float32, (cos, sin) pairs */
  const attn_tensor *cached_lengths; /* [batch] uint32: keys that the cache held before the call */
  /* Each stage: given where it comes before first_step, to be written where it is declared, NULL
   * otherwise. */
  attn_tensor *const *stages; /* [ATTN_NUM_STAGES] */
  const attn_weight *weights; /* by name, as stored */
  int64_t num_weights;
} attn_call;

/* ---- what a plug-in is ----------------------------------------------------------------------- */

/* The functions of a plug-in. Those marked optional may be NULL. `self` is what create() made, NULL
 * without one. Calls never overlap. Results must be there when run() returns. */
typedef struct attn_plugin {
  uint32_t abi_major;   /* ATTN_PLUGIN_ABI_MAJOR */
  uint32_t abi_minor;   /* ATTN_PLUGIN_ABI_MINOR */
  uint32_t struct_size; /* sizeof(attn_plugin) */
  uint32_t config_size; /* sizeof(attn_config) */
  uint32_t call_size;   /* sizeof(attn_call) */
  uint32_t capability_size; /* sizeof(attn_capability) */
  const char *name;     /* one word */
  const char *summary;  /* one line */
  /* optional: `options` is what followed the colon in --backend ./lib.so:OPTIONS, or "" */
  int (*create)(const char *options, void **self, char *message);
  void (*destroy)(void *self); /* optional */
  /* Whether the kernel runs this config (ATTN_OK) or why not (ATTN_UNSUPPORTED), and what it
   * declares for it. */
  int (*query)(void *self, const attn_config *config, attn_capability *capability, char *message);
  /* optional: prepares for calls of these shapes; index tensors hold their values. Says how much
   * workspace run() needs. */
  int (*plan)(void *self, const attn_call *call, void **plan, size_t *workspace_bytes,
              char *message);
  int (*run)(void *self, void *plan, const attn_call *call, char *message);
  void (*destroy_plan)(void *self, void *plan); /* optional */
} attn_plugin;

/* The six numbers that an attn_plugin begins with. */
#define ATTN_PLUGIN_VERSION                                                          \
  ATTN_PLUGIN_ABI_MAJOR, ATTN_PLUGIN_ABI_MINOR, (uint32_t)sizeof(attn_plugin),       \
      (uint32_t)sizeof(attn_config), (uint32_t)sizeof(attn_call),                    \
      (uint32_t)sizeof(attn_capability)

#if defined(_WIN32)
#define ATTN_PLUGIN_EXPORT __declspec(dllexport)
#else
#define ATTN_PLUGIN_EXPORT __attribute__((visibility("default")))
#endif

/* The one symbol that a plug-in exports. The result lives as long as the library. */
ATTN_PLUGIN_EXPORT const attn_plugin *attn_plugin_entry(void);

#ifdef __cplusplus
}
#endif

#endif /* ATTN_PLUGIN_H */
