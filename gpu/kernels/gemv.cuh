// Products of at most 8 rows of x with a weight as it lies: what a decode step spends its time on
// beside attention. Reading w is all there is to it, so: enough of it on its way, from before the
// kernel ahead has ended on.
//
// A block has 16 rows of w, or two tiles of 16. They are the rows of mma.sync's products and x's
// rows their columns, so that 8 rows of x cost what one costs. Lane l reads 16 bytes of rows l / 4
// and l / 4 + 8; in which order k goes through a product does not matter as long as x's goes the
// same way, so lanes take for their fragments what lies beside each other: no shared memory, no
// shuffle. Warps share out the columns, each a cache line of each row a step, and their sums meet
// in shared memory, in the order of the warps: a row of y has the same bits however many there are.
//
// With heads, the 16 rows are 8 neighbouring channels of a head and the 8 that lie half a head
// further, and bias, bound, norm, rotation and store follow at once. The blocks of a head are a
// cluster when there is a norm: each sends the others its sums of squares.
//
// Budget: two steps of 16 registers of w a tile on their way, 3 blocks a multiprocessor, or 2 of
// two tiles: 98 KB and more, three times what its share of 4.3 TB/s at a microsecond asks for.
#pragma once

#include "gpu/kernels/gemv_launch.h"
#include "gpu/kernels/gemv_work.h"
#include "gpu/kernels/mma.cuh"
#include "gpu/kernels/token_place.cuh"

namespace attn::gpu {

template <int kTiles>
struct GemvShared {
  /// Of each warp, token and row of w. The pitch keeps a warp's eight tokens apart.
  static constexpr int kPitch = kTiles * kGemvColumns + 4;
  float parts[kGemvWarps][kGemvTokens][kPitch];
  float values[kGemvTokens][kPitch];           ///< of heads, between their steps
  float squares[kGemvMostParts][kGemvTokens];  ///< of the cluster's blocks
  TokenPlace places[kGemvTokens];
};

/// A row of w or x from a column on.
template <typename T>
struct GemvRow {
  const T* first = nullptr;
  int columns = 0;  ///< that there are
  __device__ __forceinline__ const uint4* at(int column) const {
    return reinterpret_cast<const uint4*>(first + column);
  }
};

/// What a lane has of w in one step: of rows lane / 4 and 8 further, 64 bytes apart.
struct GemvStep {
  uint4 low[2], high[2];
};

template <typename T, bool kHeads, int kTiles>
class Gemv {
 public:
  using Shared = GemvShared<kTiles>;
  static constexpr int kRows = kTiles * kGemvColumns;  // of w
  static constexpr int kRing = kGemvAhead * kTiles;    // steps of a tile

  __device__ __forceinline__ Gemv(const GemvCall& call, Shared& shared);

  __device__ __forceinline__ void run();

 private:
  __device__ __forceinline__ int head_dim() const { return static_cast<int>(a_.head_dim); }
  __device__ __forceinline__ int part() const { return static_cast<int>(blockIdx.z); }
  __device__ __forceinline__ int head() const { return static_cast<int>(blockIdx.x); }
  /// Row of w that is the block's i-th.
  __device__ __forceinline__ int row_of(int i) const {
    if (kHeads) return head() * head_dim() + channel_of(i);
    return static_cast<int>(blockIdx.x) * kRows + i;
  }
  __device__ __forceinline__ int channel_of(int i) const {
    return gemv_channel(part() * kTiles + i / kGemvColumns, i % kGemvColumns, head_dim());
  }
  __device__ __forceinline__ void load_w(GemvStep& step, int index, int tile) const;
  __device__ __forceinline__ void load_x(uint4 (&x)[2], int index) const;
  __device__ __forceinline__ static void multiply(float (&c)[4], const GemvStep& step,
                                                  const uint4 (&x)[2]);
  __device__ __forceinline__ void leave_part(const float (&c)[kTiles][4]);
  __device__ __forceinline__ float sum() const;
  __device__ __forceinline__ void find_places();
  __device__ __forceinline__ void finish_plain();
  __device__ __forceinline__ void finish_heads();
  __device__ __forceinline__ float normalised(float y, int channel);
  __device__ __forceinline__ float rotated(float y, int channel) const;
  __device__ __forceinline__ void store(float y, int channel) const;

  __device__ __forceinline__ static float rounded(float x) { return to_float(from_float<T>(x)); }
  __device__ __forceinline__ bool is_q() const { return head() < static_cast<int>(a_.num_heads); }
  /// Of q or k: normalised and rotated.
  __device__ __forceinline__ bool turns() const {
    return head() < static_cast<int>(a_.num_heads + a_.num_kv_heads);
  }
  __device__ __forceinline__ bool sums_squares() const { return kHeads && a_.norm && turns(); }
  /// Of q, or of k or v.
  __device__ __forceinline__ int kv_head() const {
    return static_cast<int>((head() - a_.num_heads) % a_.num_kv_heads);
  }
  /// In the end a thread has one value of y: of a token and of the block's i-th row of w.
  __device__ __forceinline__ static int token() { return static_cast<int>(threadIdx.x) / kRows; }
  __device__ __forceinline__ static int i() { return static_cast<int>(threadIdx.x) % kRows; }
  __device__ __forceinline__ static bool has_value() { return token() < kGemvTokens; }

  const GemvCall& call_;
  const HeadPassArguments& a_;
  Shared& shared_;
  int warp_;
  int lane_;
  GemvRow<T> low_, high_, x_;
};

/// A lane's rows, from the columns of its first step on. What lies behind the last row or column is
/// zeros: such rows have no columns at all.
template <typename T, bool kHeads, int kTiles>
__device__ __forceinline__ Gemv<T, kHeads, kTiles>::Gemv(const GemvCall& call, Shared& shared)
    : call_(call),
      a_(call.a),
      shared_(shared),
      warp_(static_cast<int>(threadIdx.x) / 32),
      lane_(static_cast<int>(threadIdx.x % 32)) {
  const int first = gemv_depth(0, warp_) + 8 * (lane_ % 4);
  const auto aim = [&](const void* rows, int row, int end) {
    const int columns = row < end ? call_.depth - first : 0;
    return GemvRow<T>{
        static_cast<const T*>(rows) + static_cast<std::int64_t>(row) * call_.depth + first,
        columns};
  };
  low_ = aim(call_.w, row_of(lane_ / 4), call_.columns);
  high_ = aim(call_.w, row_of(lane_ / 4 + 8), call_.columns);
  x_ = aim(call_.x, lane_ / 4, call_.tokens);
}

template <typename T, bool kHeads, int kTiles>
__device__ __forceinline__ void Gemv<T, kHeads, kTiles>::load_w(GemvStep& step, int index,
                                                                int tile) const {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int at = gemv_depth(index, 0) + 32 * half;
    const int from = at + tile * 8 * call_.depth;
    step.low[half] = load_once(low_.at(from), at < low_.columns);
    // All rows of a head are there.
    step.high[half] = load_once(high_.at(from), at < (kHeads ? low_ : high_).columns);
  }
}

template <typename T, bool kHeads, int kTiles>
__device__ __forceinline__ void Gemv<T, kHeads, kTiles>::load_x(uint4 (&x)[2], int index) const {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int at = gemv_depth(index, 0) + 32 * half;
    x[half] = at < x_.columns ? *x_.at(at) : make_uint4(0, 0, 0, 0);
  }
}

/// Of 16 bytes of a lane the first half is columns 2 t and + 1, 2 t + 8 and + 9 of one product and
/// the second half of another, in w and in x.
template <typename T, bool kHeads, int kTiles>
__device__ __forceinline__ void Gemv<T, kHeads, kTiles>::multiply(float (&c)[4],
                                                                  const GemvStep& step,
                                                                  const uint4 (&x)[2]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const uint4& low = step.low[half];
    const uint4& high = step.high[half];
    const std::uint32_t first[4] = {low.x, high.x, low.y, high.y};
    mma_16x8x16<T>(c, first, x[half].x, x[half].y);
    const std::uint32_t second[4] = {low.z, high.z, low.w, high.w};
    mma_16x8x16<T>(c, second, x[half].z, x[half].w);
  }
}

template <typename T, bool kHeads, int kTiles>
__device__ __forceinline__ void Gemv<T, kHeads, kTiles>::leave_part(const float (&c)[kTiles][4]) {
  auto& part = shared_.parts[warp_];
  const int token = 2 * (lane_ % 4);
#pragma unroll
  for (int t = 0; t < kTiles; ++t) {
    const int row = t * kGemvColumns + lane_ / 4;
    part[token][row] = c[t][0];
    part[token + 1][row] = c[t][1];
    part[token][row + 8] = c[t][2];
    part[token + 1][row + 8] = c[t][3];
  }
}

/// Of the thread's token and row of w.
template <typename T, bool kHeads, int kTiles>
__device__ __forceinline__ float Gemv<T, kHeads, kTiles>::sum() const {
  float y = 0.0f;
#pragma unroll
  for (int w = 0; w < kGemvWarps; ++w) y += shared_.parts[w][token()][i()];
  const int row = row_of(i());
  if (call_.bias != nullptr && row < call_.columns) y = __fadd_rn(y, call_.bias[row]);
  if (fabsf(y) > call_.bound) y = copysignf(call_.bound, y);
  return y;
}

template <typename T, bool kHeads, int kTiles>
__device__ __forceinline__ void Gemv<T, kHeads, kTiles>::finish_plain() {
  if (!has_value() || token() >= call_.tokens || row_of(i()) >= call_.columns) return;
  static_cast<T*>(call_.y)[token() * call_.y_stride + row_of(i())] = from_float<T>(sum());
}

/// x / sqrt(mean(x^2) + eps) * gamma of the whole head. All threads of its blocks.
template <typename T, bool kHeads, int kTiles>
__device__ __forceinline__ float Gemv<T, kHeads, kTiles>::normalised(float y, int channel) {
  const int parts = gemv_parts(head_dim(), kTiles);
  float own = __fmul_rn(y, y);  // then of the token's rows, that lie in one warp
#pragma unroll
  for (int with = 1; with < kRows; with *= 2) own += __shfl_xor_sync(0xffffffffu, own, with);
  cluster_wait();  // all blocks have started
  if (has_value() && i() < parts) {
    cluster_store(cluster_address(shared_address(&shared_.squares[part()][token()]),
                                  static_cast<unsigned>(i())),
                  own);
  }
  cluster_arrive();
  cluster_wait();
  if (!has_value()) return y;
  float squares = 0.0f;
  for (int p = 0; p < parts; ++p) squares += shared_.squares[p][token()];
  const float mean = __fdiv_rn(squares, static_cast<float>(head_dim()));
  const float inverse = __fdiv_rn(1.0f, __fsqrt_rn(__fadd_rn(mean, a_.eps)));
  const float* const gamma = is_q() ? a_.q_gamma : a_.k_gamma;
  return rounded(__fmul_rn(__fmul_rn(y, inverse), gamma[channel]));
}

/// After a barrier behind the values' way to shared memory.
template <typename T, bool kHeads, int kTiles>
__device__ __forceinline__ float Gemv<T, kHeads, kTiles>::rotated(float y, int channel) const {
  const int position = shared_.places[token()].position;
  const int rotary = static_cast<int>(a_.rotary_dim);
  const int at = channel - (a_.rotate_last ? head_dim() - rotary : 0);
  if (position < 0 || at < 0 || at >= rotary) return y;
  const int pair = a_.interleaved ? at / 2 : at % (rotary / 2);
  const bool is_first = a_.interleaved ? at % 2 == 0 : at < rotary / 2;
  const float* const turn = a_.freqs_cis + static_cast<std::int64_t>(position) * rotary + 2 * pair;
  const float c = turn[0];
  const float s = turn[1];
  const float other = shared_.values[token()][gemv_partner(i(), a_.interleaved)];
  return rounded(is_first ? __fmaf_rn(y, c, -__fmul_rn(other, s))
                          : __fmaf_rn(other, s, __fmul_rn(y, c)));
}

/// To q, or to k's tap, and to the cache.
template <typename T, bool kHeads, int kTiles>
__device__ __forceinline__ void Gemv<T, kHeads, kTiles>::store(float y, int channel) const {
  const TokenPlace place = shared_.places[token()];
  const T value = from_float<T>(y);
  if (is_q()) {
    const std::int64_t at = (token() * a_.num_heads + head()) * a_.head_dim + channel;
    if (place.position >= 0) {
      static_cast<T*>(a_.q_roped)[at] = value;
    } else if (a_.padding_zeros != nullptr) {
      static_cast<T*>(a_.padding_zeros)[at] = from_float<T>(0.0f);
    }
    return;
  }
  if (place.position < 0) return;
  const int h = kv_head();
  const CacheView& cache = a_.cache;
  if (turns()) {
    if (a_.k_roped != nullptr) {
      static_cast<T*>(a_.k_roped)[(token() * a_.num_kv_heads + h) * a_.head_dim + channel] = value;
    }
    static_cast<T*>(cache.k)[place.page * cache.k_page_stride + place.slot * cache.k_token_stride +
                             h * cache.k_head_stride + channel] = value;
  } else {
    static_cast<T*>(cache.v)[place.page * cache.v_page_stride + place.slot * cache.v_token_stride +
                             h * cache.v_head_stride + channel] = value;
  }
}

template <typename T, bool kHeads, int kTiles>
__device__ __forceinline__ void Gemv<T, kHeads, kTiles>::finish_heads() {
  const int channel = channel_of(i());
  const bool owned = has_value() && token() < call_.tokens && shared_.places[token()].position >= 0;
  float y = has_value() ? rounded(sum()) : 0.0f;
  if (owned && call_.y != nullptr) {
    static_cast<T*>(call_.y)[token() * call_.y_stride + row_of(i())] = from_float<T>(y);
  }
  if (sums_squares()) {
    y = normalised(y, channel);
    void* const kept = is_q() ? a_.q_normed : a_.k_normed;
    if (owned && kept != nullptr) {
      const std::int64_t heads = is_q() ? a_.num_heads : a_.num_kv_heads;
      const int h = is_q() ? head() : kv_head();
      static_cast<T*>(kept)[(token() * heads + h) * a_.head_dim + channel] = from_float<T>(y);
    }
  }
  if (turns()) {
    if (has_value()) shared_.values[token()][i()] = y;
    __syncthreads();
    if (has_value()) y = rotated(y, channel);
  }
  if (has_value() && token() < call_.tokens) store(y, channel);
}

/// By one warp. Two tiles' blocks have none for it alone: the registers of two such blocks are
/// full.
template <typename T, bool kHeads, int kTiles>
__device__ __forceinline__ void Gemv<T, kHeads, kTiles>::find_places() {
  if (!kHeads) return;
  // Not before: attention takes what lies in the cache for complete when it may start.
  allow_dependent_launch();
  if (lane_ < kGemvTokens) shared_.places[lane_] = place_of_token(a_, lane_);
}

template <typename T, bool kHeads, int kTiles>
__device__ __forceinline__ void Gemv<T, kHeads, kTiles>::run() {
  if (sums_squares()) cluster_arrive_relaxed();
  if (kTiles == 1 && warp_ == kGemvWarps) {
    if (call_.ahead && lane_ < kRows && row_of(lane_) < call_.columns) {
      const T* const row =
          static_cast<const T*>(call_.w) + static_cast<std::int64_t>(row_of(lane_)) * call_.depth;
      prefetch_stretch_to_l2(row, static_cast<unsigned>(call_.depth * sizeof(T)));
    }
    wait_for_previous_grid();
    find_places();
  } else {
    const int steps = gemv_steps(call_.depth);
    GemvStep ring[kRing];
#pragma unroll
    for (int j = 0; j < kRing; ++j) load_w(ring[j], j / kTiles, j % kTiles);
    // x is its work, w is not. Without a branch here ptxas puts the wait in front of the loads.
    if (call_.depth > 0) wait_for_previous_grid();
    if (kTiles > 1 && warp_ == kGemvWarps - 1) find_places();
    uint4 x[2];  // from the L2, which is nearer: one step ahead
    load_x(x, 0);
    float c[kTiles][4] = {};
#pragma unroll 1
    for (int step = 0; step < steps; step += kGemvAhead) {
#pragma unroll
      for (int j = 0; j < kRing; ++j) {
        multiply(c[j % kTiles], ring[j], x);
        if (j % kTiles == kTiles - 1) load_x(x, step + j / kTiles + 1);  // behind the last: nothing
        load_w(ring[j], step + kGemvAhead + j / kTiles, j % kTiles);
      }
    }
    leave_part(c);
  }
  __syncthreads();
  if (kHeads) {
    finish_heads();
  } else {
    finish_plain();
  }
}

/// grid: x heads, z parts of a head; or x blocks of 16 rows of w.
template <typename T, bool kHeads, int kTiles>
__global__ void __launch_bounds__(gemv_threads(kTiles), gemv_blocks(kTiles))
    gemv_kernel(const __grid_constant__ GemvCall call) {
  extern __shared__ __align__(16) unsigned char memory[];
  auto& shared = *reinterpret_cast<GemvShared<kTiles>*>(memory);
  if (!kHeads) allow_dependent_launch();
  Gemv<T, kHeads, kTiles>(call, shared).run();
}

}  // namespace attn::gpu
