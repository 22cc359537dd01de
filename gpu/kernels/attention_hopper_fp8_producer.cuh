// What feeds the prefill kernel of fp8 products (attention_hopper_fp8.cuh): the pass that turns
// values, and the producing warpgroup.
#pragma once

#include "gpu/kernels/attention_hopper_fp8_shared.cuh"
#include "gpu/kernels/attention_hopper_images.cuh"
#include "gpu/kernels/hopper_wgmma_fp8.cuh"

namespace attn::gpu {

inline constexpr int kTurnThreads = 128;

/// A step's values as an image whose rows are channels. A warp has 32 keys; a thread loads four
/// channels of 16 of them at a time, a line of up to 128 bytes a key for the warp, exchanges bytes
/// in registers and stores 16 keys of each channel. Keys behind the sequence's end become zeros.
template <int kSlabs>
class ValueTurner {
 public:
  __device__ ValueTurner(const HopperCall& call, const ImageStep& at);
  __device__ __forceinline__ void load();
  __device__ __forceinline__ void store(unsigned char* image) const;

 private:
  static constexpr int kWarpKeys = 128 / (kTurnThreads / 32);
  static constexpr int kColumnLanes = 16 * kSlabs;  // lanes that read a key
  static constexpr int kBlocks = kSlabs;            // of 16 keys, that a thread turns

  const HopperCall& call_;
  const ImageStep& at_;
  int thread_;
  int channel_;      // the first of four
  int first_block_;  // of the step's eight
  std::uint32_t codes_[kBlocks][16];
};

template <int kSlabs>
__device__ ValueTurner<kSlabs>::ValueTurner(const HopperCall& call, const ImageStep& at)
    : call_(call),
      at_(at),
      thread_(static_cast<int>(threadIdx.x)),
      channel_(4 * (thread_ % 32 % kColumnLanes)),
      first_block_(thread_ / 32 * (kWarpKeys / 16) + thread_ % 32 / kColumnLanes) {}

template <int kSlabs>
__device__ __forceinline__ void ValueTurner<kSlabs>::load() {
  const CacheView& cache = call_.a.cache;
  const auto stride = static_cast<std::uint32_t>(cache.v_token_stride);
  // Behind the last channel: the first ones again. What comes of them is multiplied by nothing that
  // is stored.
  const int within = channel_ < static_cast<int>(call_.a.head_dim_v) ? channel_ : 0;
#pragma unroll
  for (int block = 0; block < kBlocks; ++block) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {  // 8 keys lie in one page
      const int key = at_.first_key + 16 * (first_block_ + block) + 8 * half;
      const std::uint64_t from = codes_of(cache, true, at_, min(key, (at_.keys - 1) / 8 * 8)) +
                                 static_cast<std::uint64_t>(within);
#pragma unroll
      for (int r = 0; r < 8; ++r) codes_[block][8 * half + r] = load_once_4(from + r * stride);
    }
  }
#pragma unroll
  for (int block = 0; block < kBlocks; ++block) {
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      const int key = at_.first_key + 16 * (first_block_ + block) + i;
      if (key >= at_.keys) codes_[block][i] = 0;
    }
  }
}

template <int kSlabs>
__device__ __forceinline__ void ValueTurner<kSlabs>::store(unsigned char* image) const {
#pragma unroll
  for (int block = 0; block < kBlocks; ++block) {
#pragma unroll
    for (int turn = 0; turn < 4; turn += 2) {
      // Which channels are stored first depends on the thread: selectors of the byte permutations.
      const auto a = static_cast<std::uint32_t>(fp8_channel(thread_, turn));
      const auto b = static_cast<std::uint32_t>(fp8_channel(thread_, turn + 1));
      const std::uint32_t pick = a | (a + 4) << 4 | b << 8 | (b + 4) << 12;
      std::uint32_t first[4];
      std::uint32_t second[4];
#pragma unroll
      for (int word = 0; word < 4; ++word) {
        const auto key = [&](int place) { return codes_[block][fp8_key(4 * word + place)]; };
        const std::uint32_t low = __byte_perm(key(0), key(1), pick);
        const std::uint32_t high = __byte_perm(key(2), key(3), pick);
        first[word] = __byte_perm(low, high, 0x5410);
        second[word] = __byte_perm(low, high, 0x7632);
      }
      const auto place = [&](std::uint32_t channel) {
        return reinterpret_cast<uint4*>(
            image + swizzle_128(static_cast<std::uint32_t>(channel_) + channel,
                                static_cast<std::uint32_t>(16 * (first_block_ + block))));
      };
      *place(a) = make_uint4(first[0], first[1], first[2], first[3]);
      *place(b) = make_uint4(second[0], second[1], second[2], second[3]);
    }
  }
}

/// grid: steps, kv heads, sequences; kTurnThreads, and an image in shared memory, so that it is
/// written in lines.
template <int kSlabs>
__global__ void __launch_bounds__(kTurnThreads)
    turn_images_kernel(const __grid_constant__ HopperCall call) {
  extern __shared__ __align__(16) unsigned char memory[];
  constexpr int kBytes = hopper_turned_bytes(kSlabs);
  allow_dependent_launch();
  wait_for_previous_grid();
  const ImageStep at = image_step(call, 128);
  if (!at.wanted) return;
  ValueTurner<kSlabs> turner(call, at);
  turner.load();
  turner.store(memory);
  __syncthreads();
  const auto* const from = reinterpret_cast<const uint4*>(memory);
  auto* const to = reinterpret_cast<uint4*>(call.value_images + at.image * kBytes);
#pragma unroll 4
  for (int i = static_cast<int>(threadIdx.x); i < kBytes / 16; i += kTurnThreads) to[i] = from[i];
}

/// The 16-bit element in a word's lower half.
template <typename T>
__device__ __forceinline__ float low_to_float(std::uint32_t word) {
  if constexpr (TypeOf<T>::value == Type::kBFloat16) return __uint_as_float(word << 16);
  return __half2float(__ushort_as_half(static_cast<unsigned short>(word & 0xffffu)));
}

/// The producer's warps. T is the type of the queries, of which two warps turn a half each to
/// codes: the one that draws tiles and the one that says what they see, for the tile to come.
template <typename T, int kSlabs>
class HopperFp8Producer : public HopperImageProducer<T, kSlabs, HopperFp8Shared<kSlabs>> {
 public:
  using Shared = HopperFp8Shared<kSlabs>;
  using Producer = HopperImageProducer<T, kSlabs, Shared>;
  static constexpr int kKeys = Shared::kKeys;

  using Producer::Producer;
  __device__ __forceinline__ void load_keys(const CUtensorMap* map_k);
  /// Half `part` of a tile's rows as codes, and what takes their scales back.
  __device__ __forceinline__ void convert_queries(const HopperTile& t, int slot, int part) const;

 private:
  using Box = typename Producer::Box;
  using Producer::call_;
  using Producer::lane_;
  using Producer::shared_;

  static constexpr int kQueryLanes = 4 * kSlabs;  // that have a row, 16 channels each
  static constexpr int kQueryRows = 32 / kQueryLanes;
  static constexpr int kQueriesAtOnce = 4;

  __device__ __forceinline__ Box keys_of(const HopperTile& t, int i) const;
  __device__ __forceinline__ void convert_row(const uint4 (&x)[2], int r, int column,
                                              int slot) const;
  __device__ __forceinline__ static int step_key(const HopperTile& t, int i) {
    return (t.last_step - 1 - i) * kKeys;
  }
};

/// Several loads at once, and none under a condition: behind the last row it is there once more,
/// and behind the last channel the first ones, which meet zeros in the keys.
template <typename T, int kSlabs>
__device__ __forceinline__ void HopperFp8Producer<T, kSlabs>::convert_queries(const HopperTile& t,
                                                                              int slot,
                                                                              int part) const {
  const AttentionArguments& a = call_.a;
  const int column = 16 * (lane_ % kQueryLanes);
  const int within = column < static_cast<int>(a.head_dim) ? column : 0;
  const int first_row = part * kHopperRows / 2 + lane_ / kQueryLanes;
#pragma unroll 1
  for (int first = 0; first < kHopperRows / 2; first += kQueriesAtOnce * kQueryRows) {
    uint4 x[kQueriesAtOnce][2];
#pragma unroll
    for (int i = 0; i < kQueriesAtOnce; ++i) {
      const int row = min(t.first_row + first_row + first + i * kQueryRows, t.rows - 1);
      const std::int64_t vector =
          static_cast<std::int64_t>(t.first_token + call_.query_of(row)) * a.num_heads +
          t.unit * call_.pack + call_.head_of(row);
      const auto from = reinterpret_cast<std::uint64_t>(static_cast<const T*>(a.q) +
                                                        vector * a.head_dim + within);
      x[i][0] = load_once_16(from);
      x[i][1] = load_once_16(from + 16);
    }
#pragma unroll
    for (int i = 0; i < kQueriesAtOnce; ++i) {
      convert_row(x[i], first_row + first + i * kQueryRows, column, slot);
    }
  }
  fence_proxy_async_shared();
}

/// 16 channels of a row, with the lanes that have its others.
template <typename T, int kSlabs>
__device__ __forceinline__ void HopperFp8Producer<T, kSlabs>::convert_row(const uint4 (&x)[2],
                                                                          int r, int column,
                                                                          int slot) const {
  const std::uint32_t words[8] = {x[0].x, x[0].y, x[0].z, x[0].w, x[1].x, x[1].y, x[1].z, x[1].w};
  // Magnitudes are ordered as their bits are, NaN last.
  int most = 0;
#pragma unroll
  for (const std::uint32_t word : words) {
    most = max(most, max(static_cast<int>(word & 0x7fffu), static_cast<int>(word >> 16 & 0x7fffu)));
  }
#pragma unroll
  for (int with = 1; with < kQueryLanes; with *= 2) {
    most = max(most, __shfl_xor_sync(0xffffffffu, most, with));
  }
  const Fp8RowScale scale =
      fp8_row_scale(__float_as_uint(low_to_float<T>(static_cast<std::uint32_t>(most))));
  const float times = __uint_as_float(scale.times);
  std::uint32_t codes[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const std::uint32_t low = words[2 * i];
    const std::uint32_t high = words[2 * i + 1];
    codes[i] = pack_codes(low_to_float<T>(low) * times, low_to_float<T>(low >> 16) * times,
                          low_to_float<T>(high) * times, low_to_float<T>(high >> 16) * times);
  }
  store_shared_16(shared_address(shared_.q[slot][r / kHopperGroupRows]) +
                      swizzle_128(static_cast<std::uint32_t>(r % kHopperGroupRows),
                                  static_cast<std::uint32_t>(column)),
                  make_uint4(codes[0], codes[1], codes[2], codes[3]));
  if (column == 0) shared_.query_scale[slot][r] = __uint_as_float(scale.back);
}

/// The lane's box of a step's keys, looked up before it is asked for.
template <typename T, int kSlabs>
__device__ __forceinline__ typename HopperFp8Producer<T, kSlabs>::Box
HopperFp8Producer<T, kSlabs>::keys_of(const HopperTile& t, int i) const {
  const CacheView& cache = call_.a.cache;
  Box box;
  box.boxes = hopper_pieces(t.keys, step_key(t, i), kKeys, call_.piece);
  if (lane_ >= box.boxes) return box;
  const PagePlace at =
      page_place(step_key(t, i) + lane_ * call_.piece, static_cast<int>(cache.page_size));
  box.slot = at.slot;
  box.page = static_cast<int>(cache.page_table[t.sequence * cache.table_stride + at.column]);
  return box;
}

/// The boxes of a step, one a lane.
template <typename T, int kSlabs>
__device__ __forceinline__ void HopperFp8Producer<T, kSlabs>::load_keys(const CUtensorMap* map_k) {
  const int bytes = call_.piece * kSlabRowBytes;
  RingPlace<Shared::kStages> ring;
  for (int turn = 0;; ++turn) {
    const HopperTile t = this->next_tile(turn);
    if (t.sequence < 0) return;
    if (lane_ == 0) barrier_arrive(&shared_.begun);
    const int kv_head = this->kv_head_of(t);
#pragma unroll 1
    for (int i = 0; i < t.steps; ++i) {
      const int stage = ring.slot;
      const Box box = keys_of(t, i);
      barrier_wait(&shared_.empty_k[stage], ring.parity ^ 1);
      if (lane_ == 0) {
        barrier_arrive_bytes(&shared_.full_k[stage], static_cast<unsigned>(box.boxes * bytes));
      }
      __syncwarp();
      if (lane_ < box.boxes) {
        tensor_load_4d(&shared_.k[stage][lane_ * bytes], map_k, &shared_.full_k[stage], 0, box.slot,
                       kv_head, box.page);
      }
      __syncwarp();
      ring.advance();
    }
  }
}

}  // namespace attn::gpu
