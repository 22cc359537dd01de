/* The library of attn-compare for other languages: cases, the exact reference, judgements, golden
 * files and the worker that runs a backend of the caller's. C99; the Python package is built on it.
 *
 * Functions that can fail return NULL (or nonzero where they return int); attn_last_error() then
 * has one line. Texts are UTF-8, end with a zero and belong to the caller, who gives them back with
 * attn_free_text(). Handles are used by one thread at a time. */
#ifndef ATTN_COMPARE_H
#define ATTN_COMPARE_H

#include <stddef.h>
#include <stdint.h>

#include "harness/backends/attn_plugin.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Grows when a function is removed or changes its meaning. */
#define ATTN_COMPARE_API 1
#define ATTN_COMPARE_EXPORT __attribute__((visibility("default")))

typedef struct attn_case attn_case;
typedef struct attn_trace attn_trace;

ATTN_COMPARE_EXPORT int attn_api_version(void);
/* "0.1.0 (commit)". Static. */
ATTN_COMPARE_EXPORT const char *attn_version(void);
/* Of the calling thread's last call that failed. Static until its next one. */
ATTN_COMPARE_EXPORT const char *attn_last_error(void);
ATTN_COMPARE_EXPORT void attn_free_text(char *text);

/* ---- cases ---- */

/* The case that `spec` (the JSON of --config, or a bare config) and `seed` determine to the byte.
 */
ATTN_COMPARE_EXPORT attn_case *attn_case_make(const char *spec, uint64_t seed);
/* A golden file, its cache laid into pages shuffled under `page_seed`. */
ATTN_COMPARE_EXPORT attn_case *attn_case_read(const char *path, uint64_t page_seed);
/* A case of given tensors, by their dataset names in a golden file ("inputs/q", "cache/k",
 * "weights/q_proj.weight", ...): dense, on the host, in the stored types; copied. */
ATTN_COMPARE_EXPORT attn_case *attn_case_from(const char *config, const char *const *names,
                                              const attn_tensor *tensors, int64_t count,
                                              uint64_t page_seed);
ATTN_COMPARE_EXPORT void attn_case_destroy(attn_case *c);

/* JSON: id, config (as parsed), repro (the words that make the case again), tensors: names by which
 * attn_case_tensor knows them, stages that the case has. */
ATTN_COMPARE_EXPORT char *attn_case_describe(const attn_case *c);
/* "x", "q", "input_row_offsets", "cache_lengths", "freqs_cis", "mask", "cache.k", "cache.v",
 * "cache.k_scale", "cache.v_scale", "cache.page_table", "weights.q_proj.weight", ... Lives as long
 * as the case; not to be written. */
ATTN_COMPARE_EXPORT const attn_tensor *attn_case_tensor(const attn_case *c, const char *name);

/* Cases of the gate's covering array, then random ones, that match. `request` is JSON:
 * {"when": PREDICATE, "n": N, "seed": S, "gate": "smoke" | "pr" | "nightly"}; PREDICATE is that of
 * waivers, in which words such as decode, prefill, gqa, fp8kv stand for conditions and "and", "or",
 * "not" for && || !. Returns JSON: [{"spec": ..., "seed": ..., "id": ...}, ...]. Fails where too
 * few match. */
ATTN_COMPARE_EXPORT char *attn_cases(const char *request);

/* ---- the exact reference ---- */

/* mode: "exact" or "faithful". */
ATTN_COMPARE_EXPORT attn_trace *attn_reference(const attn_case *c, const char *mode);
ATTN_COMPARE_EXPORT void attn_trace_destroy(attn_trace *trace);
/* float64, in the stage's shape; NULL where the trace has none of that name. */
ATTN_COMPARE_EXPORT const attn_tensor *attn_trace_stage(const attn_trace *trace, const char *stage);

/* ---- judging ---- */

/* Runs the plug-in on the case in this process, twice, in guarded memory, and judges every stage.
 * `options` is JSON: {"taps": true, "threads": 1, "backend_options": "", "name": "mine", "exec":
 * "plain", "spec": "", "seed": 1}: exec is a mode of `run --exec`, spec and seed are those of the
 * case, for modes that make another one from them. Returns the JSON of a report's row, with "text":
 * what `attn-compare run` prints of it. */
ATTN_COMPARE_EXPORT char *attn_check(const attn_plugin *plugin, const attn_case *c,
                                     const char *options);

/* ---- golden files ---- */

/* Writes the case and its exact answers, sealed when a second evaluation agrees. `options` is JSON:
 * {"force": false, "generator": "", "command_line": "", "more": {KEY: TEXT}}. Nonzero: failed. */
ATTN_COMPARE_EXPORT int attn_golden_write(const attn_case *c, const char *path,
                                          const char *options);

/* ---- workers ---- */

/* Makes the backend that a spec ("py:FILE:NAME:OPTIONS") names, or returns NULL with a reason in
 * `message` (ATTN_MESSAGE_SIZE bytes). The plug-in lives as long as the process. */
typedef const attn_plugin *(*attn_loader)(const char *spec, char *message);
/* Answers attn-compare's questions on descriptor 3 until it is closed, then ends the process. For a
 * process that attn-compare started. */
ATTN_COMPARE_EXPORT void attn_worker(attn_loader load, uint64_t memory_bytes);

#ifdef __cplusplus
}
#endif

#endif /* ATTN_COMPARE_H */
