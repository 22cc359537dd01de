#include <cfloat>

#include "gpu/kernels/dependent_launch.cuh"
#include "gpu/kernels/element.cuh"
#include "gpu/kernels/fp8_quantise.h"
#include "gpu/kernels/mma.cuh"

namespace attn::gpu {
namespace {

constexpr int kThreads = 256;
constexpr int kPiece = 8;                   // columns of a thread at a time
constexpr int kStride = kPiece * kThreads;  // columns of a block at a time
constexpr int kBlockLanes = 128 / kPiece;   // threads that share a scale of kBlock
constexpr unsigned kAllLanes = 0xffffffffu;

/// Eight neighbours of a row, as they lie in memory.
template <typename T>
struct Piece {
  uint4 words[kPiece * sizeof(T) / 16];

  __device__ __forceinline__ void load(const T* x) {
#pragma unroll
    for (int i = 0; i < static_cast<int>(kPiece * sizeof(T) / 16); ++i) {
      words[i] = reinterpret_cast<const uint4*>(x)[i];
    }
  }
  __device__ __forceinline__ void values(float (&v)[kPiece]) const {
    const T* const x = reinterpret_cast<const T*>(words);
#pragma unroll
    for (int i = 0; i < kPiece; ++i) v[i] = to_float(x[i]);
  }
  __device__ __forceinline__ float largest() const {
    float v[kPiece];
    values(v);
    float amax = 0.0f;
#pragma unroll
    for (int i = 0; i < kPiece; ++i) amax = fmaxf(amax, fabsf(v[i]));
    return amax;
  }
};

__device__ __forceinline__ float scale_of(float amax) {
  return __fdiv_rn(fminf(amax, 1200.0f), 448.0f);
}

/// x / scale by its reciprocal, as the layer in its own types does it.
struct Quotient {
  float scale;
  float inverse;

  static __device__ __forceinline__ Quotient by(float scale) { return {scale, __frcp_rn(scale)}; }
  __device__ __forceinline__ void store(const float (&v)[kPiece], std::uint8_t* codes) const {
    float q[kPiece];
    if (fabsf(inverse) >= FLT_MIN && fabsf(inverse) <= FLT_MAX) {
#pragma unroll
      for (int i = 0; i < kPiece; ++i) q[i] = __fmul_rn(v[i], inverse);
    } else {
#pragma unroll
      for (int i = 0; i < kPiece; ++i) q[i] = scale == 0.0f ? 0.0f : __fdiv_rn(v[i], scale);
    }
    std::uint32_t words[kPiece / 4];
#pragma unroll
    for (int i = 0; i < kPiece / 4; ++i) {
      const std::uint32_t low =
          __nv_cvt_float2_to_fp8x2(make_float2(q[4 * i], q[4 * i + 1]), __NV_SATFINITE, __NV_E4M3);
      const std::uint32_t high = __nv_cvt_float2_to_fp8x2(make_float2(q[4 * i + 2], q[4 * i + 3]),
                                                          __NV_SATFINITE, __NV_E4M3);
      words[i] = low | high << 16;
    }
    *reinterpret_cast<uint2*>(codes) = {words[0], words[1]};
  }
  template <typename T>
  __device__ __forceinline__ void store(const Piece<T>& piece, std::uint8_t* codes) const {
    float v[kPiece];
    piece.values(v);
    store(v, codes);
  }
};

/// One block a row, whose columns share a scale. kKept pieces of a thread stay in registers from
/// the search for the largest to the codes; others are read again.
template <typename T, int kKept>
__global__ void __launch_bounds__(kThreads) fp8_rows(Fp8QuantiseArguments a) {
  __shared__ float of_warp[kThreads / 32];
  const std::int64_t row = blockIdx.x;
  const T* const x = static_cast<const T*>(a.x) + row * a.width;
  const std::int64_t own = kPiece * threadIdx.x;
  wait_for_previous_grid();
  Piece<T> kept[kKept];
#pragma unroll
  for (int i = 0; i < kKept; ++i) {
    if (own + i * kStride < a.width) kept[i].load(x + own + i * kStride);
  }
  float amax = 0.0f;
#pragma unroll
  for (int i = 0; i < kKept; ++i) {
    if (own + i * kStride < a.width) amax = fmaxf(amax, kept[i].largest());
  }
  for (std::int64_t c = own + kKept * kStride; c < a.width; c += kStride) {
    Piece<T> piece;
    piece.load(x + c);
    amax = fmaxf(amax, piece.largest());
  }
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    amax = fmaxf(amax, __shfl_xor_sync(kAllLanes, amax, step));
  }
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = amax;
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kThreads / 32; ++i) amax = fmaxf(amax, of_warp[i]);

  const Quotient quotient = Quotient::by(scale_of(amax));
  if (threadIdx.x == 0) a.scales[row] = quotient.scale;
  std::uint8_t* const codes = static_cast<std::uint8_t*>(a.codes) + row * a.width;
#pragma unroll
  for (int i = 0; i < kKept; ++i) {
    if (own + i * kStride < a.width) quotient.store(kept[i], codes + own + i * kStride);
  }
  for (std::int64_t c = own + kKept * kStride; c < a.width; c += kStride) {
    Piece<T> piece;
    piece.load(x + c);
    quotient.store(piece, codes + c);
  }
}

/// One block a row, whose scale is given, or found for each 128 columns by 16 neighbouring threads.
template <typename T, bool kBlocks>
__global__ void __launch_bounds__(kThreads) fp8_pieces(Fp8QuantiseArguments a) {
  const std::int64_t row = blockIdx.x;
  const bool has_values = row < a.rows;
  const T* const x = static_cast<const T*>(a.x) + row * a.width;
  std::uint8_t* const codes = static_cast<std::uint8_t*>(a.codes) + row * a.width;
  wait_for_previous_grid();
  for (std::int64_t first = 0; first < a.width; first += kStride) {  // all threads together
    const std::int64_t c = first + kPiece * threadIdx.x;
    const bool valid = c < a.width;
    Piece<T> piece = {};
    if (valid && has_values) piece.load(x + c);
    float scale = a.scale;
    if constexpr (kBlocks) {
      float amax = piece.largest();
#pragma unroll
      for (int step = kBlockLanes / 2; step > 0; step /= 2) {
        amax = fmaxf(amax, __shfl_xor_sync(kAllLanes, amax, step));
      }
      scale = scale_of(amax);
      if (valid && threadIdx.x % kBlockLanes == 0) a.scales[c / 128 * a.padded_rows + row] = scale;
    }
    if (valid) Quotient::by(scale).store(piece, codes + c);
  }
}

template <typename T>
void launch(const Fp8QuantiseArguments& a, cudaStream_t stream) {
  const auto with = [&](auto kernel, std::int64_t rows) {
    launch_dependent(kernel, dim3(static_cast<unsigned>(rows)), 1, kThreads, 0, stream, a);
  };
  switch (a.scale_of) {
    case Fp8ScaleOf::kTensor:
      return with(fp8_pieces<T, false>, a.padded_rows);
    case Fp8ScaleOf::kBlock:
      return with(fp8_pieces<T, true>, a.padded_rows);
    case Fp8ScaleOf::kRow:
      break;
  }
  if (a.width <= kStride) return with(fp8_rows<T, 1>, a.rows);
  if (a.width <= 2 * kStride) return with(fp8_rows<T, 2>, a.rows);
  with(fp8_rows<T, 4>, a.rows);
}

}  // namespace

void quantise_fp8(const Fp8QuantiseArguments& a, StreamHandle stream) {
  if (a.rows == 0 || a.width == 0) return;
  switch (a.type) {
    case Type::kFloat32:
      return launch<float>(a, stream);
    case Type::kBFloat16:
      return launch<Bf16>(a, stream);
    default:
      return launch<Half>(a, stream);
  }
}

}  // namespace attn::gpu
