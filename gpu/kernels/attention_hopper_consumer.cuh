// A consuming warpgroup of the Hopper prefill kernel (attention_hopper.cuh): scores, softmax,
// outputs.
#pragma once

#include <type_traits>

#include "gpu/kernels/attention_hopper_fp8_shared.cuh"
#include "gpu/kernels/attention_mma.cuh"
#include "gpu/kernels/hopper_wgmma.cuh"
#include "gpu/kernels/hopper_wgmma_fp8.cuh"

namespace attn::gpu {

/// How a warpgroup gets what it multiplies.
enum HopperWay : int {
  kHopperTyped = 0,  ///< keys and values of type T, probabilities of it from registers
  kHopperCodes = 1,  ///< codes widened, not yet scaled: keys to T, values and probabilities float16
  kHopperFp8 = 2,    ///< codes as they are: queries and probabilities are turned to e4m3
  kHopperImages = 3,  ///< as kHopperCodes, but widened by a pass before the kernel
};

/// A warpgroup with its 64 rows of a tile.
template <typename T, int kSlabs, int kWay = kHopperTyped>
class HopperConsumer {
  static constexpr bool kFp8 = kWay == kHopperFp8;
  static constexpr bool kImages = kWay == kHopperImages;
  static constexpr bool kCoded = kWay == kHopperCodes || kImages || kFp8;

 public:
  using Shared =
      std::conditional_t<kFp8, HopperFp8Shared<kSlabs>,
                         std::conditional_t<kImages, HopperImagesShared<T, kSlabs>,
                                            std::conditional_t<kCoded, HopperCodedShared<T, kSlabs>,
                                                               HopperShared<T, kSlabs>>>>;
  using V = std::conditional_t<kCoded, Half, T>;
  static constexpr int kKeys = Shared::kKeys;
  static constexpr int kScores = kKeys / 2;                   // registers of a thread
  static constexpr int kOutputs = kSlabs * kSlabColumns / 2;  // likewise
  /// The next tile's first scores begin before this one's outputs are written: a gain for heads of
  /// 64 and 256 channels, but none for those of 128 (docs/kernels.md).
  static constexpr bool kOpensEarly = kSlabs != 2;
  /// Steps but the first begin with the shifts of those before. (Beside warps that widen no
  /// registers are left for that.)
  static constexpr bool kKeepsShifts = kWay != kHopperCodes;
  static constexpr int kProbabilities = kFp8 ? kScores / 4 : kScores / 2;

  __device__ HopperConsumer(const HopperCall& call, Shared& shared)
      : call_(call),
        shared_(shared),
        // Agreed upon, so that descriptors are counted up in uniform registers.
        group_(__shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) / 128 - 1, 0)),
        lane_(static_cast<int>(threadIdx.x % 32)) {}

  __device__ __forceinline__ void run();

 private:
  /// Steps of a tile, or that there was none left.
  static constexpr int kNone = -1;
  __device__ __forceinline__ int open(int turn, float (&s)[kScores]);
  __device__ __forceinline__ void begin_rows(int slot);
  __device__ __forceinline__ int attend(int turn, int steps, float (&s)[kScores]);
  __device__ __forceinline__ void compute_scores(float (&s)[kScores], int slot, int stage) const;
  __device__ __forceinline__ void add_values(float (&o)[kOutputs],
                                             const std::uint32_t (&p)[kProbabilities],
                                             int stage) const;
  __device__ __forceinline__ void hide(float (&s)[kScores], int slot, int step_key) const;
  __device__ __forceinline__ bool online_softmax_of(const float (&s)[kScores],
                                                    std::uint32_t (&p)[kProbabilities],
                                                    float (&correction)[2], bool exact);
  __device__ __forceinline__ bool raise_shifts(const float (&s)[kScores], float (&correction)[2]);
  __device__ __forceinline__ bool to_probabilities(const float (&s)[kScores],
                                                   const float (&shift)[2],
                                                   std::uint32_t (&p)[kProbabilities],
                                                   float (&total)[2]) const;
  __device__ __forceinline__ void write(const HopperTile& t, int slot, float (&o)[kOutputs]);
  /// Row of the tile of accumulators 2 h, 2 h + 1.
  __device__ __forceinline__ int row_of(int h) const {
    return group_ * kHopperGroupRows + accumulator_row(static_cast<int>(threadIdx.x), 2 * h);
  }
  __device__ __forceinline__ std::int64_t vector_of(const HopperTile& t, int row) const {
    return static_cast<std::int64_t>(t.first_token + call_.query_of(row)) * call_.a.num_heads +
           t.unit * call_.pack + call_.head_of(row);
  }
  /// Wide rows: descriptors would be made before the loop and fill its registers.
  __device__ __forceinline__ static std::uint64_t here(std::uint64_t descriptor) {
    return kSlabs > 2 ? hoist_none(descriptor) : descriptor;
  }
  /// What makes exponents of two of the scores of accumulators 2 h, 2 h + 1.
  __device__ __forceinline__ float scale_log2(int h) const {
    if constexpr (kFp8) return row_scale_[h];
    return units_.scale_log2;
  }
  __device__ __forceinline__ void release(std::uint64_t* barrier) const {
    if (lane_ == 0) barrier_arrive(barrier);
  }

  /// The warpgroups issue both products of a step by turns, so that one makes exponentials while
  /// the other multiplies. Both have the same number of steps.
  __device__ __forceinline__ void await_turn() const {
    named_barrier_wait<128 * kHopperGroups>(kTurnBarrier + group_);
  }
  __device__ __forceinline__ void give_turn() const {
    named_barrier_arrive<128 * kHopperGroups>(kTurnBarrier + 1 - group_);
  }
  static constexpr int kTurnBarrier = 1;
  static_assert(kHopperGroups == 2);

  const HopperCall& call_;
  Shared& shared_;
  int group_;
  int lane_;
  // Of the next keys and values.
  RingPlace<Shared::kStages> k_;
  RingPlace<Shared::kStages> v_;
  ScoreUnits units_;
  // Of the tile, of this thread's two rows.
  float shift_[2];  // a probability is 2^(score in log2 - shift); -infinity: no key was seen
  float sum_[2];
  float row_scale_[2];  // kFp8: each row's queries have a scale of their own
};

template <typename T, int kSlabs, int kWay>
__device__ __forceinline__ void HopperConsumer<T, kSlabs, kWay>::compute_scores(
    float (&s)[kScores], [[maybe_unused]] int slot, int stage) const {
  if constexpr (kFp8) {
    const std::uint64_t q = slab_descriptor(shared_address(shared_.q[slot][group_]));
    const std::uint64_t k = slab_descriptor(shared_address(shared_.k[stage]));
    pin_registers(s);
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < kSlabs * 2; ++i) {
      wgmma_scores_fp8<kKeys>(s, descriptor_after(q, 2 * i), descriptor_after(k, 2 * i),
                              i > 0 ? 1 : 0);
    }
    wgmma_commit();
  } else {
    // Descriptors of a call are a few 16-byte units apart.
    const std::uint64_t q = here(slab_descriptor(shared_address(shared_.q[group_])));
    const std::uint64_t k = here(slab_descriptor(shared_address(shared_.k[stage])));
    pin_registers(s);
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < kSlabs * 4; ++i) {
      const int slab = i / 4;
      wgmma_scores<T, kKeys>(
          s, descriptor_after(q, (slab * Shared::kQuerySlab * 2 + i % 4 * 32) / 16),
          descriptor_after(k, (slab * Shared::kSlab * 2 + i % 4 * 32) / 16), i > 0 ? 1 : 0);
    }
    wgmma_commit();
  }
}

template <typename T, int kSlabs, int kWay>
__device__ __forceinline__ void HopperConsumer<T, kSlabs, kWay>::add_values(
    float (&o)[kOutputs], const std::uint32_t (&p)[kProbabilities], int stage) const {
  if constexpr (kFp8) {  // a row of v is a channel
    const std::uint64_t v = slab_descriptor(shared_address(shared_.v[stage]));
    pin_registers(o);
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < kKeys / 32; ++i) {
      wgmma_values_fp8<kSlabs * kSlabColumns>(o, p + 4 * i, descriptor_after(v, 2 * i));
    }
    wgmma_commit();
  } else {
    const std::uint64_t v =
        here(slab_descriptor_transposed(shared_address(shared_.v[stage]), Shared::kSlab * 2));
    pin_registers(o);
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < kKeys / 16; ++i) {
      wgmma_values<V, kSlabs * kSlabColumns>(o, p + 4 * i, descriptor_after(v, 2048 / 16 * i));
    }
    wgmma_commit();
  }
}

/// Waits for a tile and lets its first scores begin.
template <typename T, int kSlabs, int kWay>
__device__ __forceinline__ int HopperConsumer<T, kSlabs, kWay>::open(int turn,
                                                                     float (&s)[kScores]) {
  const int slot = ring_slot(turn, kHopperTileSlots);
  barrier_wait(&shared_.full_rows[slot], ring_full_parity(turn, kHopperTileSlots));
  const HopperTile& t = shared_.tile[slot];
  // Through a shuffle, so that the compiler knows a warp to agree on its branches.
  const int steps = __shfl_sync(0xffffffffu, t.sequence < 0 ? kNone : t.steps, 0);
  // Codes of queries came with what is said of the rows, and stay as long as the tile.
  if constexpr (!kFp8) {
    if (steps != kNone) barrier_wait(&shared_.full_q[group_], turn % 2);
    if (steps == 0) {
      __syncwarp();  // or a lane that came late would wait for the phase after
      release(&shared_.empty_q[group_]);
    }
  }
  if (steps > 0) barrier_wait(&shared_.full_k[k_.slot], k_.parity);
  // Without steps of whatever lies there: products under a condition ptxas puts one after the
  // other.
  compute_scores(s, slot, k_.slot);
  return steps;
}

/// What the rows of a tile begin with, and what makes exponents of their scores.
template <typename T, int kSlabs, int kWay>
__device__ __forceinline__ void HopperConsumer<T, kSlabs, kWay>::begin_rows(int slot) {
  if constexpr (kCoded) {  // scales are those of the tile's kv head
    const float scale = call_.a.scale * shared_.scales[slot].x;
    const int transforms = transforms_scores(call_.a) || !(scale > 0.0f) ? 1 : 0;
    units_.transforms = __shfl_sync(0xffffffffu, transforms, 0) != 0;
    units_.scale_log2 = units_.transforms ? 1.0f : scale * kLog2E;
  }
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    if constexpr (kFp8) {
      row_scale_[h] =
          units_.transforms ? 1.0f : units_.scale_log2 * shared_.query_scale[slot][row_of(h)];
      // A product that is too small for float32 would make a NaN of a hidden key's -infinity.
      if (row_scale_[h] == 0.0f) row_scale_[h] = 0x1p-126f;
    }
    shift_[h] = -INFINITY;
    sum_[h] = 0.0f;
  }
}

/// A tile from its first scores on, to its outputs; opens the next one.
template <typename T, int kSlabs, int kWay>
__device__ __forceinline__ int HopperConsumer<T, kSlabs, kWay>::attend(int turn, int steps,
                                                                       float (&s)[kScores]) {
  const int slot = ring_slot(turn, kHopperTileSlots);
  const HopperTile& t = shared_.tile[slot];  // stays until this warp has left it
  const auto agreed = [](int x) { return __shfl_sync(0xffffffffu, x, 0); };
  const int last_step = agreed(t.last_step);
  begin_rows(slot);
  // With a soft-cap each score is changed on its way.
  const int2 walk = units_.transforms ? make_int2(steps, steps) : shared_.plain[slot][group_];
  const int first_plain = agreed(walk.x);
  const int last_plain = agreed(walk.y);
  float o[kOutputs];
#pragma unroll
  for (int i = 0; i < kOutputs; ++i) o[i] = 0.0f;

  // Of a step and of the one before, which its product reads until it is waited for.
  std::uint32_t p[kProbabilities];
  std::uint32_t next_p[kProbabilities];
  wgmma_wait<0>();
  pin_registers(s);
  if (steps > 0) {
    float correction[2];
    const int last = steps - 1;
    const auto key_of = [&](int i) { return (last_step - 1 - i) * kKeys; };
    const auto await_keys = [&](int i) {
      if (i <= last) barrier_wait(&shared_.full_k[k_.slot], k_.parity);
    };
    const auto release_keys = [&](int i) {
      release(&shared_.empty_k[k_.slot]);
      k_.advance();
      if constexpr (!kFp8) {
        if (i == last) release(&shared_.empty_q[group_]);
      }
    };
    const auto release_values = [&] {
      release(&shared_.empty_v[v_.slot]);
      v_.advance();
    };
    release_keys(0);
    hide(s, slot, key_of(0));
    bool raised = online_softmax_of(s, p, correction, true);
    const auto rescale = [&] {
      if (!raised) return;
#pragma unroll
      for (int j = 0; j < kOutputs; ++j) o[j] *= correction[j / 2 % 2];
    };
    await_keys(1);
    const auto step = [&](int i, auto plain, const std::uint32_t(&from)[kProbabilities],
                          std::uint32_t(&to)[kProbabilities]) {
      await_turn();
      compute_scores(s, slot, k_.slot);
      rescale();
      barrier_wait(&shared_.full_v[v_.slot], v_.parity);
      add_values(o, from, v_.slot);
      give_turn();
      wgmma_wait<1>();
      pin_registers(s);
      release_keys(i);
      if constexpr (!plain.value) hide(s, slot, key_of(i));
      // A row of codes that sees few keys in its first step is soon above their range.
      raised = online_softmax_of(s, to, correction, !kKeepsShifts || (kFp8 && i == 1));
      // Here, though only the next step needs them: without a branch between the softmax and the
      // wait for the values, ptxas moves that wait in front of it, and nothing runs beside them.
      await_keys(i + 1);
      wgmma_wait<0>();
      pin_registers(o);
      release_values();
    };
    const auto step_and_keep = [&](int i, auto plain) {
      step(i, plain, p, next_p);
#pragma unroll
      for (int j = 0; j < kProbabilities; ++j) p[j] = copy_register(next_p[j]);
    };
    // Steps at a mask's edges have a loop of their own: before those that every row sees whole, and
    // after.
    int i = 1;
#pragma unroll 1
    for (int part = 0; part < 2; ++part) {
      const int masked_end = part == 0 ? first_plain : steps;
#pragma unroll 1
      for (; i < masked_end; ++i) step_and_keep(i, std::false_type{});
      const int plain_end = part == 0 ? last_plain : 0;
#pragma unroll 1
      for (; kKeepsShifts && i + 1 < plain_end; i += 2) {
        step(i, std::true_type{}, p, next_p);
        step(i + 1, std::true_type{}, next_p, p);
      }
#pragma unroll 1
      for (; i < plain_end; ++i) step_and_keep(i, std::true_type{});
    }
    rescale();
    barrier_wait(&shared_.full_v[v_.slot], v_.parity);
    add_values(o, p, v_.slot);
  }
  int next = 0;
  if constexpr (kOpensEarly) {
    next = open(turn + 1, s);
    wgmma_wait<1>();
  } else {
    wgmma_wait<0>();
  }
  pin_registers(o);
  if (steps > 0) {
    release(&shared_.empty_v[v_.slot]);
    v_.advance();
  }
  write(t, slot, o);
  barrier_arrive(&shared_.empty_tile[slot]);
  if constexpr (!kOpensEarly) next = open(turn + 1, s);
  return next;
}

template <typename T, int kSlabs, int kWay>
__device__ __forceinline__ void HopperConsumer<T, kSlabs, kWay>::run() {
  if constexpr (!kCoded) units_ = score_units(call_.a);
  float s[kScores];
  if (group_ == 1) give_turn();
  int steps = open(0, s);
  for (int turn = 0; steps != kNone; ++turn) steps = attend(turn, steps, s);
  wgmma_wait<0>();
  if (group_ == 0) await_turn();  // the other's last, so that none is left
}

}  // namespace attn::gpu

#include "gpu/kernels/attention_hopper_softmax.cuh"
#include "gpu/kernels/attention_hopper_write.cuh"
