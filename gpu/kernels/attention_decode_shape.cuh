// Shapes and shared memory of the decode kernel, and how a sequence's keys are shared out.
#pragma once

#include <type_traits>

#include "gpu/kernels/attention_decode_lean.h"
#include "gpu/kernels/attention_mma.cuh"
#include "gpu/kernels/prefill_shape.h"

namespace attn::gpu {

/// kRows: packed rows of the kernel's products, 8 or 16. kLean: of attention_decode_lean.cuh.
template <int kHeadDim_, int kWarps_, int kSlots_, int kRows_, int kBlocksPerSm_,
          bool kLean_ = false>
struct DecodeShape {
  static constexpr int kHeadDim = kHeadDim_;
  static constexpr int kWarps = kWarps_;
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kKeys = kDecodeKeys;  // of a warp's step
  static constexpr int kSlots = kSlots_;     // of a warp's ring
  static constexpr int kRows = kRows_;
  static constexpr int kRowTiles = kRows / 8;
  static constexpr int kBlocksPerSm = kBlocksPerSm_;
  static constexpr bool kLean = kLean_;
};

template <typename C, typename Shape>
struct DecodeShared {
  static constexpr int kStride = kSharedStride<Shape::kHeadDim, C>;
  static constexpr bool kScaled = std::is_same_v<C, E4m3>;
  /// Each slot holds the keys or the values of one run.
  using Slot = C[Shape::kKeys][kStride];
  // What a warp brings to the end of a row. The padding spreads the rows that a warp writes at once
  // over the banks.
  struct Part {
    float out[Shape::kRows][Shape::kHeadDim + 4];
    float2 end[Shape::kRows];  // maximum in exponents of two, sum
  };
  // Written by the other blocks of a cluster: their parts of this block's share of the outputs.
  struct Received {
    float4 out[Shape::kRows * Shape::kHeadDim / 4 + kMostCluster];
    float2 end[kMostCluster][Shape::kRows];
  };
  // Of a row's splits, where they come from the workspace.
  struct Weights {
    float2 of[kMostSplits][Shape::kRows];  // of the part, its sum
    float max[Shape::kRows];
  };
  // Of every split, this block's share of the outputs, from where the others left it.
  struct Gathered {
    float4 out[Shape::kRows * Shape::kHeadDim / 4 + kMostSplits];
    float2 end[Shape::kRows * Shape::kHeadDim / 4 + kMostSplits];
  };
  struct Nothing {};
  struct Parts {
    Part of[Shape::kWarps];
  };
  Slot ring[Shape::kWarps][Shape::kSlots];
  std::conditional_t<Shape::kLean, Nothing, Parts> parts;
  union {
    Received received;
    Weights weights;
    std::conditional_t<Shape::kLean, Gathered, Nothing> gathered;
  };
  bool last;  ///< the block that comes last of its splits
  MailDuty duty;
  float scales[kScaled ? Shape::kWarps : 1][Shape::kSlots][Shape::kKeys];

  /// What warp w brings. Lean blocks have two on a multiprocessor: it lies where its ring was.
  __device__ __forceinline__ Part& part(int w) {
    if constexpr (Shape::kLean) {
      static_assert(sizeof(Part) <= sizeof(ring[0]));
      return *static_cast<Part*>(static_cast<void*>(&ring[w]));
    } else {
      return parts.of[w];
    }
  }
};

/// Runs of kDecodeKeys keys, begin .. end - 1.
struct Share {
  int begin = 0;
  int end = 0;
};

/// What block `split` has to do of a sequence: whole rounds of the block's warps.
template <typename Shape>
__device__ __forceinline__ Share share_of(const AttentionArguments& a, const Sequence& sequence,
                                          int split, int splits) {
  const KeyRange first = visible_keys(a, sequence.keys, position_of(a, sequence, 0));
  const KeyRange last = visible_keys(a, sequence.keys, position_of(a, sequence, sequence.rows - 1));
  Share share;
  if (sequence.rows == 0) return share;
  if (first.begin < last.end) {
    share.begin = static_cast<int>(first.begin / Shape::kKeys);
    share.end = static_cast<int>((last.end + Shape::kKeys - 1) / Shape::kKeys);
  }
  if (splits == 1) return share;
  const auto rounds =
      static_cast<unsigned>(share.end - share.begin + Shape::kWarps - 1) / Shape::kWarps;
  const auto parts = static_cast<unsigned>(splits);
  const int each = static_cast<int>((rounds + parts - 1) / parts) * Shape::kWarps;
  share.begin = min(share.begin + split * each, share.end);
  share.end = min(share.begin + each, share.end);
  return share;
}

}  // namespace attn::gpu
