#pragma once

#include <cstdint>

#include "gpu/device/device.h"
#include "gpu/kernels/batch.h"

namespace attn::gpu {

enum class MaskKind : std::uint8_t {
  kNone,      ///< every key (a tensor may still add to the scores)
  kCausal,    ///< k <= q
  kChunked,   ///< k <= q and in the same chunk
  kWindow,    ///< k <= q and q - k < window
  kLookback,  ///< q - k < window, later keys too
};

/// One attention call. q [tokens, num_heads, head_dim] and out [tokens, num_heads, head_dim_v] are
/// dense; lse is [tokens, num_heads] float32, natural logarithm with the sink.
struct AttentionArguments {
  Type type = Type::kFloat32;  ///< of q and out
  const void* q = nullptr;
  void* out = nullptr;
  float* lse = nullptr;
  CacheView cache;
  BatchView batch;
  std::int64_t num_heads = 0;
  std::int64_t num_kv_heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t head_dim_v = 0;
  float scale = 1.0f;
  float softcap = 0.0f;  ///< 0: none
  MaskKind mask = MaskKind::kNone;
  std::int64_t span = 0;               ///< window or chunk
  bool top_left = false;               ///< position of row i: i, else keys - rows + i
  const float* mask_tensor = nullptr;  ///< [tokens, mask_stride] added to the scores, or none
  std::int64_t mask_stride = 0;
  const float* sinks = nullptr;  ///< [num_heads] or none
  /// The kernel ahead in the stream writes q and each sequence's last keys, one of each of its
  /// rows; all else that is read here was complete before that kernel let this one start.
  bool old_keys_ready = false;
#ifdef ATTN_FAULTY
  int call = 0;  ///< runs before this one, for a bug that depends on it
#endif
};

/// Float32 on the CUDA cores, any types, head sizes and masks: one block for one head of one row.
/// Slow and plain; it is what the fast kernels fall back to. Keys that a row does not see are never
/// multiplied.
void attention_plain(const AttentionArguments& arguments, StreamHandle stream);
/// Keys per online-softmax step of attention_plain.
inline constexpr int kPlainBlock = 128;

/// True when the tensor-core kernels take these types and head sizes: bfloat16 or float16 for q, a
/// cache of the same type or of e4m3 codes, head sizes multiples of 8 up to 256.
bool has_tensor_core_kernel(Type type, Type cache_type, std::int64_t head_dim,
                            std::int64_t head_dim_v);
#ifdef ATTN_FAULTY
inline constexpr int kTensorCoreMostHeadDim = 64;  // one instance is enough to show a bug
#else
inline constexpr int kTensorCoreMostHeadDim = 256;
#endif

/// Type of the probabilities of the tensor-core kernels: that of q; of coded caches float16, and
/// bfloat16 where they carry the scales of tokens, whose range float16 does not have.
constexpr Type probability_type(Type type, Type cache_type, CacheScales scales) {
  if (cache_type != Type::kFloat8E4M3) return type;
  return scales == CacheScales::kTokenHead ? Type::kBFloat16 : Type::kFloat16;
}

/// How calls that lean_decode() takes are decoded; all others take the general kernel.
struct DecodeWay {
  bool lean = true;         ///< less before the first key; the others are of this one
  bool two_blocks = false;  ///< on a multiprocessor: one fills its ring while the other ends
  bool mail = true;         ///< splits leave each other their parts and wait for them
  /// From so many keys on: below it clusters are faster (docs/kernels.md, "Decoding").
  std::int64_t mail_keys = 2048;
};

/// How one call is cut into blocks: made on the host from upper bounds of the lengths, so that a
/// captured call may be replayed while the lengths on the device grow up to them.
struct AttentionPlan {
  bool decode = false;         ///< the kernel for up to 16 packed rows, else the tiled one
  bool small_tiles = false;    ///< of the tiled kernel
  int splits = 1;              ///< parts of the keys of a row tile
  std::int64_t row_tiles = 0;  ///< per sequence and kv head
  // Of the decode kernel.
  int decode_rows = 0;            ///< packed rows that its products are made for, 8 or 16
  bool cluster = false;           ///< the splits are one cluster
  std::int64_t decode_items = 0;  ///< sequences times kv heads: blocks of each split
  /// Of calls that lean_decode() takes; the general kernel has none of it.
  DecodeWay way{false, false, false};
  // As planned: where decode blocks expect their first keys.
  std::int64_t max_rows = 0;
  std::int64_t max_keys = 0;
};

/// Keys of a step of one of the decode kernel's warps.
inline constexpr int kDecodeKeys = 16;
/// Most warps of a block of the decode kernel; each makes a part of its own.
inline constexpr int kMostDecodeWarps = 8;
/// Most packed rows (queries times heads of a group) of the decode kernel.
inline constexpr int kDecodeRows = 16;
inline constexpr int kMostSplits = 64;
/// Blocks of the largest cluster of decode blocks.
inline constexpr int kMostCluster = 8;
/// The fewest keys of one online-softmax step.
inline constexpr int kTensorCoreBlock = 16;

/// What a plan depends on besides the lengths.
struct AttentionShape {
  std::int64_t num_heads = 0;
  std::int64_t num_kv_heads = 0;
  std::int64_t head_dim = 0;  ///< the larger of both
  bool coded = false;         ///< a cache of 8-bit codes
  int multiprocessors = 1;
  bool clusters = false;  ///< runs_hopper_code()
  DecodeWay decode;
  /// Above 0: that many parts, and nothing taken from the device or the batch, so that a row's bits
  /// do not depend on its neighbours.
  int fixed_splits = 0;
};

/// `max_rows`, `max_keys`: of any one sequence.
AttentionPlan plan_attention(const AttentionShape& shape, std::int64_t batch, std::int64_t max_rows,
                             std::int64_t max_keys);

/// Floats of workspace that the plan's splits need, 0 for one split.
std::int64_t partial_floats(const AttentionPlan& plan, std::int64_t tokens, std::int64_t num_heads,
                            std::int64_t head_dim_v);

/// Counters that a decode call may use: unsigned zeros, which it leaves zero.
inline constexpr int kCounters = 4096;
/// Floats of zeros that calls of these plans may use as mail, and leave zero: as much for any plan.
std::int64_t mail_floats(const AttentionShape& shape);
/// True when the decode kernel adds up its own splits, by a cluster or its last block.
bool combines_in_kernel(const AttentionPlan& plan);

/// Needs has_tensor_core_kernel. `partials`: partial_floats() floats of workspace; `counters`:
/// kCounters zeros, which it leaves zero, and so `mail`: mail_floats(). Probabilities are rounded
/// to probability_type() where they multiply the values. Keys that a row does not see have weight
/// 0 there; where the values of such a key are NaN or infinite and another row of the tile sees it,
/// the row gets NaN.
void attention_tensor_core(const AttentionArguments& arguments, const AttentionPlan& plan,
                           float* partials, unsigned* counters, float* mail, StreamHandle stream);

}  // namespace attn::gpu
