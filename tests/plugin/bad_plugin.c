/* The minimal example, which is right, but for what its options name: "WHAT" misbehaves in every
 * case, "WHAT@N" only in cases with N query rows. */
#include <fcntl.h>
#include <fenv.h>
#include <locale.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "harness/backends/attn_plugin.h"

#define attn_plugin_entry good_plugin
#include "examples/plugin_minimal.c"
#undef attn_plugin_entry

static char g_what[64];
static long g_rows = -1;

static int create(const char *options, void **self, char *message) {
  const char *at = strchr(options, '@');
  const size_t length = at != NULL ? (size_t)(at - options) : strlen(options);
  *self = NULL;
  if (length >= sizeof(g_what)) {
    snprintf(message, ATTN_MESSAGE_SIZE, "too long");
    return ATTN_ERROR;
  }
  memcpy(g_what, options, length);
  g_what[length] = '\0';
  if (at != NULL) g_rows = atol(at + 1);
  if (strcmp(g_what, "refuse_options") == 0) {
    snprintf(message, ATTN_MESSAGE_SIZE, "no such option, sorry");
    return ATTN_ERROR;
  }
  if (strcmp(g_what, "crash_in_create") == 0) raise(SIGSEGV);
  return ATTN_OK;
}

static int is(const char *what) { return strcmp(g_what, what) == 0; }

/* Sinks and masks are not what the example supports; there is something to run over all the same. */
static int reads_everything(void) {
  return strstr(g_what, "sinks") || strstr(g_what, "mask") || strstr(g_what, "_scale");
}

static int bad_query(void *self, const attn_config *config, attn_capability *capability,
                 char *message) {
  if (is("crash_in_query")) abort();
  if (is("unsupported")) {
    snprintf(message, ATTN_MESSAGE_SIZE, "only on Tuesdays\nand\tFridays");
    return ATTN_UNSUPPORTED;
  }
  if (is("unended_message")) {
    memset(message, 'x', ATTN_MESSAGE_SIZE);
    return ATTN_UNSUPPORTED;
  }
  if (is("bad_dtype")) capability->out.code = 77;
  if (is("bad_alignment")) capability->tensor_alignment = 3;
  if (is("nondeterministic")) capability->claims = ATTN_CLAIM_DETERMINISTIC;
  if (is("empty_rows_written")) capability->empty_rows = ATTN_EMPTY_ROWS_UNTOUCHED;
  if (is("empty_rows_infinite")) capability->empty_rows = ATTN_EMPTY_ROWS_FINITE;
  if (is("base2")) capability->lse_base = ATTN_LSE_BASE_2;
  if (is("heads_first")) capability->lse_layout = ATTN_LSE_HEADS_TOKENS;
  if (is("empty_rows_untouched")) capability->empty_rows = ATTN_EMPTY_ROWS_UNTOUCHED;
  if (is("empty_rows_finite")) capability->empty_rows = ATTN_EMPTY_ROWS_FINITE;
  if (is("aligned")) capability->tensor_alignment = 256;
  if (is("only_out") || is("last_key_dropped")) capability->stages = 1u << ATTN_STAGE_ATTN_OUT;
  if (reads_everything()) return ATTN_OK;
  attn_config asked = *config;
  if (is("silent_no_sink")) asked.has_sinks = 0;
  return good_plugin()->query(self, &asked, capability, message);
}

static int64_t count(const attn_tensor *t) {
  int64_t n = 1;
  for (int i = 0; i < t->ndim; ++i) n *= t->shape[i];
  return n;
}

static void zero(attn_tensor *t) {
  if (t != NULL) memset(attn_data(t), 0, (size_t)count(t) * t->dtype.bits / 8);
}

static const attn_tensor *named(const attn_call *c, const char *name) {
  const struct {
    const char *name;
    const attn_tensor *tensor;
  } all[] = {{"q", c->q},
             {"k_cache", c->k_cache},
             {"v_cache", c->v_cache},
             {"page_table", c->page_table},
             {"row_offsets", c->row_offsets},
             {"key_lengths", c->key_lengths},
             {"sinks", c->sinks},
             {"mask", c->mask},
             {"k_scale", c->k_scale},
             {"v_scale", c->v_scale},
             {"attn_out", c->attn_out},
             {"lse", c->lse}};
  for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); ++i) {
    if (strcmp(all[i].name, name) == 0) return all[i].tensor;
  }
  return NULL;
}

/* "read_after_q", "write_before_lse", "write_into_q", ...: one element. */
static volatile unsigned char g_sink;
static void access_one(const attn_call *c) {
  char verb[8], place[8], name[32];
  if (sscanf(g_what, "%7[a-z]_%7[a-z]_%31s", verb, place, name) != 3) return;
  unsigned char *data;
  size_t bytes, width;
  if (strcmp(name, "workspace") == 0) {
    data = c->workspace;
    bytes = c->workspace_bytes;
    width = 4;
  } else {
    const attn_tensor *t = named(c, name);
    if (t == NULL) return;
    data = t->data;
    width = t->dtype.bits / 8;
    bytes = (size_t)count(t) * width;
  }
  unsigned char *target = data;
  if (strcmp(place, "after") == 0) target = data + bytes;
  if (strcmp(place, "before") == 0) target = data - width;
  for (size_t i = 0; i < width; ++i) {
    if (strcmp(verb, "read") == 0) {
      g_sink = ((volatile unsigned char *)target)[i];
    } else if (strcmp(verb, "write") == 0) {
      target[i] = 0x3c;
    } else { /* restore */
      const unsigned char old = target[i];
      ((volatile unsigned char *)target)[i] = (unsigned char)(old ^ 0x40);
      ((volatile unsigned char *)target)[i] = old;
    }
  }
}

/* The socket to the parent, found as a plug-in gone wild might hit it. */
static int find_socket(void) {
  for (int fd = 3; fd < 64; ++fd) {
    int type;
    socklen_t size = sizeof(type);
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0) return fd;
  }
  return -1;
}

static int recurse(int depth) {
  volatile char frame[4096];
  frame[0] = (char)depth;
  return depth < 0 ? 0 : recurse(depth + 1) + frame[0];
}

static void *endless(void *argument) {
  for (;;) g_sink = (unsigned char)(g_sink + 1);
  return argument;
}

/* An allocation whose size, which the allocator keeps before it, is overwritten. */
static void free_spoilt(void) {
  char *volatile spoilt = malloc(2000);
  volatile uintptr_t size = (uintptr_t)spoilt - 8;
  memset((void *)size, 0x5a, 8);
  free(spoilt);
}

static void flood(int descriptor, size_t bytes) {
  static char garbage[1 << 16];
  memset(garbage, '#', sizeof(garbage));
  for (size_t written = 0; written < bytes; written += sizeof(garbage)) {
    if (write(descriptor, garbage, sizeof(garbage)) < 0) return;
  }
}

/* What outlives the call without ending the process. */
static void leave_something_behind(void) {
  if (is("survivor") && fork() == 0) pause(); /* keeps every descriptor open */
  if (is("daemon") && fork() == 0) {          /* in a session of its own */
    setsid();
    for (int i = 0; i < 600; ++i) usleep(100000);
    _exit(0);
  }
  if (is("close_std")) {
    for (int fd = 0; fd < 3; ++fd) close(fd);
  }
  if (is("alarm")) {
    const struct itimerval soon = {{0, 0}, {0, 200000}};
    setitimer(ITIMER_REAL, &soon, NULL);
  }
  if (is("arithmetic")) fesetround(FE_UPWARD);
#if defined(__x86_64__)
  if (is("arithmetic")) __builtin_ia32_ldmxcsr(__builtin_ia32_stmxcsr() | 0x8040); /* FTZ, DAZ */
#endif
  if (is("arithmetic") || is("locale")) setlocale(LC_ALL, "C.UTF-8");
  if (is("traps")) feenableexcept(FE_INVALID | FE_DIVBYZERO | FE_INEXACT);
  if (is("elsewhere") && chdir("/") != 0) abort();
  if (is("flood")) flood(1, (size_t)1 << 30);
  if (is("flood_then_abort")) {
    flood(2, (size_t)1 << 26);
    abort();
  }
  if (is("close_everything")) {
    for (int fd = 0; fd < 1024; ++fd) close(fd);
  }
  if (is("block_signals") || is("block_signals_loop")) {
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    for (int number = 1; number < 32; ++number) signal(number, SIG_IGN);
  }
  if (is("thread")) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, endless, NULL) == 0) pthread_detach(thread);
  }
  while (strstr(g_what, "_loop") != NULL) g_sink = 0;
}

static void die(void) {
  static const char kHalf[20] = "attnwork\4\0\0\0";
  int *volatile nowhere = (int *)16;
  if (is("segfault")) *nowhere = 1;
  if (is("abort")) abort();
  if (is("loop")) {
    for (volatile int i = 0;; ++i) {
    }
  }
  if (is("exit0")) exit(0);
  if (is("exit_quietly")) _exit(3);
  if (is("stop")) raise(SIGSTOP);
  if (is("kill_group")) kill(0, SIGKILL);
  if (is("heap")) free_spoilt();
  if (is("just_under")) usleep(2500000); /* in each of two calls */
  if (is("divide")) raise(SIGFPE);
  if (is("stack")) g_sink = (unsigned char)recurse(1);
  if (is("half_reply") || is("half_reply_hang")) {
    if (write(find_socket(), kHalf, sizeof(kHalf)) < 0) perror("write");
    if (is("half_reply_hang")) pause();
    _exit(0);
  }
  if (is("garbage_reply")) {
    for (int i = 0; i < 1000; ++i) {
      if (write(find_socket(), "this is no reply at all, is it? ", 32) < 0) break;
    }
  }
  if (is("forged_reply")) { /* well formed, with an old number and nothing in it */
    const uint64_t frame[3] = {0x6b726f776e747461u, 5, 0};
    if (write(find_socket(), frame, sizeof(frame)) < 0) perror("write");
  }
  if (is("close_socket")) {
    close(find_socket());
    pause();
  }
  if (is("orphan") && fork() == 0) pause(); /* a child that keeps every descriptor open */
  if (is("orphan")) _exit(4);
  if (is("memory")) {
    for (;;) {
      char *more = malloc(1 << 24);
      if (more == NULL) {
        fprintf(stderr, "no more memory\n");
        abort();
      }
      memset(more, 1, 1 << 24);
    }
  }
  if (is("last_words")) {
    printf("first line\nthe kernel says goodbye\n");
    fflush(stdout);
    abort();
  }
}

/* What is right when it is declared and wrong when it is not. */
static int changes_form(const attn_call *c) {
  const int64_t rows = c->tokens, heads = c->config->num_heads;
  const int empty = strncmp(g_what, "empty_rows_", 11) == 0 || strncmp(g_what, "silent_empty_", 13) == 0;
  for (int64_t t = 0; t < rows; ++t) {
    for (int64_t h = 0; h < heads; ++h) {
      float *lse = at(c->lse, t, h, 0);
      if (is("base2") || is("silent_base2")) *lse *= 1.44269504f;
      if (!empty || *lse != -INFINITY) continue;
      const int untouched = strstr(g_what, "untouched") != NULL;
      memset(lse, untouched ? 0xff : 0x11, sizeof(*lse));
      memset(at(c->attn_out, t, h, 0), untouched ? 0xff : 0x11,
             (size_t)c->config->head_dim_v * sizeof(float));
    }
  }
  if (is("aligned") && ((uintptr_t)c->q->data | (uintptr_t)c->attn_out->data) % 256 != 0) return 0;
  return 1;
}

/* An attention whose output is right and whose lse is that of another convention. */
static void write_other_lse(const attn_call *c) {
  const int64_t rows = c->tokens, heads = c->config->num_heads;
  if (is("silent_heads_first")) {
    float *copy = malloc((size_t)(rows * heads) * sizeof(float));
    for (int64_t t = 0; t < rows; ++t) {
      for (int64_t h = 0; h < heads; ++h) copy[h * rows + t] = *at(c->lse, t, h, 0);
    }
    memcpy(attn_data(c->lse), copy, (size_t)(rows * heads) * sizeof(float));
    free(copy);
  }
  if (!is("silent_no_sink") || c->sinks == NULL) return;
  for (int64_t t = 0; t < rows; ++t) {
    for (int64_t h = 0; h < heads; ++h) {
      const float lse = *at(c->lse, t, h, 0);
      const float sink = ((const float *)attn_data(c->sinks))[h * c->sinks->strides[0]];
      const float share = 1.0f / (1.0f + expf(sink - lse));
      float *out = at(c->attn_out, t, h, 0);
      for (int64_t d = 0; d < c->config->head_dim_v; ++d) out[d] *= share;
    }
  }
}

static int bad_plan(void *self, const attn_call *call, void **plan_out, size_t *workspace_bytes,
                char *message) {
  (void)self, (void)call, (void)plan_out, (void)message;
  if (is("crash_in_plan")) abort();
  *workspace_bytes = 4096;
  return ATTN_OK;
}

static int bad_run(void *self, void *plan_made, const attn_call *c, char *message) {
  static int calls = 0;
  ++calls;
  int status = ATTN_OK;
  if (reads_everything()) {
    zero(c->attn_out);
    zero(c->lse);
  } else {
    attn_call whole = *c;
    float scratch[1 << 14]; /* the example always writes lse */
    attn_tensor lse = *c->attn_out;
    lse.data = scratch;
    int64_t strides[] = {c->config->num_heads, 1};
    lse.strides = strides;
    lse.ndim = 2;
    lse.byte_offset = 0;
    if (whole.lse == NULL) whole.lse = &lse;
    uint32_t fewer[256]; /* the causal rows end one key earlier */
    attn_tensor lengths = *c->key_lengths;
    if (is("last_key_dropped") && c->batch <= 256) {
      for (int64_t b = 0; b < c->batch; ++b) {
        const uint32_t keys = ((const uint32_t *)attn_data(c->key_lengths))[b];
        fewer[b] = keys > 0 ? keys - 1 : 0;
      }
      lengths.data = fewer;
      lengths.byte_offset = 0;
      whole.key_lengths = &lengths;
    }
    status = good_plugin()->run(self, plan_made, &whole, message);
  }
  if (status == ATTN_OK) write_other_lse(c);
  if (status != ATTN_OK || (g_rows >= 0 && c->tokens != g_rows)) return status;
  if (is("error")) {
    snprintf(message, ATTN_MESSAGE_SIZE, "no kernel image for this device");
    return ATTN_ERROR;
  }
  if (is("late_unsupported")) {
    snprintf(message, ATTN_MESSAGE_SIZE, "too many rows for one launch");
    return ATTN_UNSUPPORTED;
  }
  if (is("slow")) usleep(20000);
  if (is("empty_rows_untouched") || is("empty_rows_finite") || is("silent_empty_untouched") ||
      is("silent_empty_finite") || strstr(g_what, "base2") || is("aligned")) {
    return changes_form(c) ? ATTN_OK : ATTN_ERROR;
  }
  leave_something_behind();
  die();
  if (is("noise")) {
    for (int i = 0; i < 20000; ++i) printf("\033[31mnoise %d \x01\xff 3 passed, 0 failed\n", i);
    fflush(stdout);
  }
  const size_t row = (size_t)c->attn_out->strides[0] * sizeof(float);
  if (is("unwritten")) memset(attn_data(c->attn_out), 0xff, (size_t)c->tokens * row);
  if (is("last_row_unwritten")) {
    memset((char *)attn_data(c->attn_out) + (size_t)(c->tokens - 1) * row, 0xff, row);
  }
  if (is("empty_rows_infinite")) *(float *)attn_data(c->attn_out) = 1.0f / 0.0f;
  if (is("nondeterministic")) *(float *)attn_data(c->attn_out) += (float)calls * 1e-7f;
  access_one(c);
  return ATTN_OK;
}

static void destroy(void *self) {
  (void)self;
  if (is("hang_in_destroy")) pause();
  if (is("heap_at_exit")) free_spoilt();
}

/* When the library is unloaded, or its process ends. */
__attribute__((destructor)) static void end(void) {
  if (is("hang_at_exit")) pause();
}

const attn_plugin *attn_plugin_entry(void) {
  static const attn_plugin plugin = {
      ATTN_PLUGIN_VERSION, "bad", "misbehaves", create, destroy, bad_query, bad_plan, bad_run, NULL};
  return &plugin;
}
