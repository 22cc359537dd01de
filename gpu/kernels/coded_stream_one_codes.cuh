// One row of x, turned to int8 codes in registers, with q4_k's weights. mma.sync has eight columns,
// and x is one: the column of a group of 32 has x's codes of this group and zeros elsewhere, so
// that one accumulator holds the sums of all eight groups of 256 columns, each in a column of its
// own, and is scaled once.
#pragma once

#include "gpu/kernels/coded_stream_bytes.cuh"
#include "gpu/kernels/coded_stream_one.cuh"

namespace attn::gpu {

struct OneRowOfCodes {
  using Stage = StreamStage<CodeKind::kU4, true>;
  static constexpr int kJobBytes = kOneRowCodesJob;
  const CodedGemmArguments& a;
  const int lane;
  const char* codes = nullptr;
  const char* scales = nullptr;
  const char* mins = nullptr;
  const char* outer = nullptr;
  float v[2][4] = {};           ///< of x: what the words of codes are made of
  std::uint32_t words[2] = {};  ///< codes of the two times 16 columns of group lane / 4
  int sums[2] = {};             ///< of codes of groups 2 (lane % 4) and + 1
  float x_scale = 0.0f;

  __device__ __forceinline__ OneRowOfCodes(const CodedGemmArguments& arguments, int own_lane)
      : a(arguments), lane(own_lane) {}

  __device__ __forceinline__ void start(int tile) {
    codes = tile_of(a.w.codes, tile) + 16 * lane;
    scales = tile_of(a.w.inner, tile) + 4 * lane;
    mins = tile_of(a.w.inner_min, tile) + 4 * lane;
    outer = tile_of(lane % 2 == 0 ? a.w.outer : a.w.outer_min, tile) +
            4 * (lane / 4 * 2 + lane % 4 / 2);
  }

  /// Words: number lane of the records of scales and of mins; and of lane % 4 the outer scale or
  /// min of row lane / 4, and of the row 8 further.
  __device__ __forceinline__ void copy(std::uint32_t slot, int tile, int stage) const {
    const auto of_block = static_cast<std::uint32_t>(tile * stages() + stage);
#pragma unroll
    for (int c = 0; c < 4; ++c) copy_job_codes(slot, lane, codes + 2048 * of_block + 512 * c, c);
    copy_job_word(slot, lane, 0, scales + 128 * of_block);
    copy_job_word(slot, lane, 1, mins + 128 * of_block);
    copy_job_word(slot, lane, 2, outer + 64 * of_block);
  }
  __device__ __forceinline__ int stages() const { return static_cast<int>(a.w.chunks) / 4; }

  __device__ __forceinline__ void fetch(int stage) {
    const int column = stage * kStreamUnit + 32 * (lane / 4) + 2 * (lane % 4);
    const auto fetch_as = [&](Type type) {
#pragma unroll
      for (int s = 0; s < 2; ++s) {
        load_two(a.x, type, column + 16 * s, v[s][0], v[s][2]);
        load_two(a.x, type, column + 16 * s + 8, v[s][1], v[s][3]);
      }
    };
    if (a.x_type == Type::kFloat32) {  // the common one, in one go
      fetch_as(Type::kFloat32);
    } else {
      fetch_as(a.x_type);
    }
  }

  __device__ __forceinline__ void bring() {
    std::uint32_t bits = 0;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const std::uint32_t own = __float_as_uint(v[i / 4][i % 4]) & 0x7fffffffu;
      bits = own > bits ? own : bits;
    }
    const CodeScale scale(largest_of_warp(bits));
    x_scale = scale.scale;
    int sum = 0;
#pragma unroll
    for (int s = 0; s < 2; ++s) {
      words[s] = 0;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int code = __float2int_rn(__fmul_rn(v[s][i], scale.inverse));
        sum += code;
        words[s] |= (static_cast<std::uint32_t>(code) & 0xffu) << 8 * i;
      }
    }
    sum += __shfl_xor_sync(0xffffffffu, sum, 1);
    sum += __shfl_xor_sync(0xffffffffu, sum, 2);
#pragma unroll
    for (int i = 0; i < 2; ++i) sums[i] = __shfl_sync(0xffffffffu, sum, 8 * (lane % 4) + 4 * i);
  }

  /// Bytes of groups 2 (lane % 4) and + 1, of rows lane / 4 and + 8, out of a record's words: six
  /// bits each, without a sign.
  __device__ __forceinline__ void of_groups(std::uint32_t word, int (&first)[2],
                                            int (&second)[2]) const {
    const std::uint32_t low = 0x4440u | 2 * (lane / 4 % 2);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const auto four = static_cast<std::uint32_t>(
          __shfl_sync(0xffffffffu, static_cast<int>(word), 8 * (lane % 4) + 4 * i + lane / 8));
      first[i] = static_cast<int>(__byte_perm(four, 0, low));
      second[i] = static_cast<int>(__byte_perm(four, 0, low + 1));
    }
  }

  __device__ __forceinline__ void add(const char* slot, float* to) const {
    int c[4] = {};
#pragma unroll
    for (int chunk = 0; chunk < 4; ++chunk) {
      const uint4 four = job_codes(slot, lane, chunk);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        std::uint32_t w[4];
        stream_bytes<CodeKind::kU4, true>(half == 0 ? four.x : four.z, half == 0 ? four.y : four.w,
                                          w);
        const bool own = lane / 4 == 2 * chunk + half;
        mma_bytes_32<true>(c, w, own ? words[0] : 0u, own ? words[1] : 0u);
      }
    }
    int first[2];
    int second[2];
    of_groups(job_word(slot, lane, 0), first, second);
    const int total[2] = {c[0] * first[0] + c[1] * first[1], c[2] * second[0] + c[3] * second[1]};
    of_groups(job_word(slot, lane, 1), first, second);
    const int less[2] = {sums[0] * first[0] + sums[1] * first[1],
                         sums[0] * second[0] + sums[1] * second[1]};
    // Each of four lanes adds up one of the four: half of them to the neighbour, then to the next.
    const bool odd = lane % 2 == 1;
    const bool upper = lane % 4 >= 2;
    int kept[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      kept[r] =
          (odd ? less[r] : total[r]) + __shfl_xor_sync(0xffffffffu, odd ? total[r] : less[r], 1);
    }
    const int own =
        (upper ? kept[1] : kept[0]) + __shfl_xor_sync(0xffffffffu, upper ? kept[0] : kept[1], 2);
    // Codes of the row 8 further are 16 times theirs.
    const float outer_of = __uint_as_float(job_word(slot, lane, 2));
    const float factor = upper && !odd ? outer_of * 0.0625f : outer_of;
    const float term = __fmul_rn(static_cast<float>(own), factor);
    const float min = __shfl_xor_sync(0xffffffffu, term, 1);
    if (!odd) to[lane / 4 + (upper ? 8 : 0)] += __fmul_rn(__fadd_rn(term, -min), x_scale);
  }
};

__global__ void __launch_bounds__(kStreamThreads, 2)
    coded_stream_one_codes(const __grid_constant__ CodedGemmArguments a, int tiles_of_block,
                           int early) {
  extern __shared__ unsigned char memory[];
  const int thread = kept_thread(a);
  OneRowOfCodes product(a, thread % 32);
  char* const codes = reinterpret_cast<char*>(memory);
  one_row_product(a, product, thread, codes,
                  reinterpret_cast<float*>(codes + kStreamWarps * kOneRowDepth * kOneRowCodesJob),
                  tiles_of_block, early);
}

}  // namespace attn::gpu
