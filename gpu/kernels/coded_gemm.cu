#include <algorithm>
#include <limits>
#include <type_traits>

#include "gpu/kernels/coded_decode.cuh"
#include "gpu/kernels/coded_gemm.h"
#include "gpu/kernels/coded_launch.h"

namespace attn::gpu {
namespace {

constexpr std::int64_t kMostFewRows = 16;
constexpr int kRowsOfWideTile = 128;
constexpr int kThreadsOfWide = 256;

/// Nothing but static shared memory where the device has wgmma: how the host sees which of the
/// build's architectures the driver took.
__global__ void wide_probe(int* out) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  __shared__ int marker[64];
  marker[threadIdx.x] = out[threadIdx.x];
  __syncthreads();
  out[threadIdx.x] = marker[63 - threadIdx.x];
#endif
}

int wide_tile(CodeScaling scaling, std::int64_t m) {
  if (scaling == CodeScaling::kGroup) return 64;  // sums of a group have registers of their own
  return m <= 32 ? 32 : m <= 64 ? 64 : 128;
}

}  // namespace

bool has_wide_kernels() {
  cudaFuncAttributes attributes = {};
  check(cudaFuncGetAttributes(&attributes, wide_probe), "cudaFuncGetAttributes");
  return attributes.sharedSizeBytes > 0;
}

CodedGemmPlan plan_coded_gemm(CodeScaling scaling, std::int64_t m, std::int64_t rows,
                              std::int64_t chunks, int multiprocessors, int tile) {
  CodedGemmPlan plan;
  if (m <= kMostFewRows || !has_wide_kernels()) return plan;
  plan.tile = tile > 0 && scaling != CodeScaling::kGroup ? tile : wide_tile(scaling, m);
  const std::int64_t tiles =
      (rows + kRowsOfWideTile - 1) / kRowsOfWideTile * ((m + plan.tile - 1) / plan.tile);
  if (tiles * chunks > std::numeric_limits<int>::max()) return {};
  const std::int64_t resident = multiprocessors;  // shared memory is one block's
  // Blocks with whole tiles differ by one tile; with many each, that is little.
  const bool whole = tiles >= std::min<std::int64_t>(4 * resident, kCodedCounters);
  plan.blocks = static_cast<int>(std::min(resident, whole ? tiles : tiles * chunks));
  if (!whole) {
    plan.partial_bytes = static_cast<std::size_t>(2 * plan.blocks) * (plan.tile / 2) *
                         kThreadsOfWide * sizeof(float);
  }
  return plan;
}

void coded_gemm(const CodedGemmArguments& a, const CodedGemmPlan& plan, float* partials,
                unsigned* counters, StreamHandle stream) {
  if (a.m == 0 || a.n == 0) return;
  const bool by_group = a.w.scaling == CodeScaling::kGroup;
  if (plan.tile > 0) {
    if (a.w.scaling == CodeScaling::kRow) {
      return launch_wide_rows(a, plan, partials, counters, stream);
    }
    if (!by_group) {
      return a.w.kind == CodeKind::kU4 ? launch_wide_4bit(a, plan, partials, counters, stream)
                                       : launch_wide_8bit(a, plan, partials, counters, stream);
    }
    if (a.w.kind == CodeKind::kE2m1 || a.w.kind == CodeKind::kE4m3) {
      return launch_wide_floats(a, plan, partials, counters, stream);
    }
    return launch_wide_integers(a, plan, partials, counters, stream);
  }
  // grid.y ends at 65535, of 16 rows at least.
  constexpr std::int64_t kMostRows = 65535LL * 16;
  for (std::int64_t first = 0; first < a.m; first += kMostRows) {
    CodedGemmArguments part = a;
    part.x = static_cast<const char*>(a.x) + first * a.x_stride * size_of(a.x_type);
    const std::int64_t steps = first * a.w.chunks * (kCodedChunk / kCodedStep);
    if (a.x_scale != nullptr) part.x_scale = a.x_scale + steps;
    if (a.x_sum != nullptr) part.x_sum = a.x_sum + steps;
    part.y = static_cast<char*>(a.y) + first * a.y_stride * size_of(a.out_type);
    part.m = std::min(a.m - first, kMostRows);
    if (by_group) {
      launch_coded_by_group(part, part.m <= kMostFewRows, stream);
    } else {
      launch_coded_by_weight(part, part.m <= kMostFewRows, stream);
    }
  }
}

namespace {

constexpr int kDecodeWarps = 4;
constexpr int kDecodeStride = kCodedChunk + 8;

/// One warp a chunk of a tile, through shared memory so that rows leave whole.
template <CodeKind kKind, typename T>
__global__ void __launch_bounds__(32 * kDecodeWarps)
    decode_kernel(const __grid_constant__ CodedMatrix w, std::int64_t n, std::int64_t k,
                  T* values) {
  constexpr bool kFloat = sizeof(T) == 4;
  using Code = std::conditional_t<kFloat, Half, T>;  // float16 holds every code
  __shared__ __align__(16) T rows[kDecodeWarps][kCodedTile][kDecodeStride];
  const int lane = threadIdx.x % 32;
  auto& own = rows[threadIdx.x / 32];
  const unsigned job = blockIdx.x * kDecodeWarps + threadIdx.x / 32;
  const std::int64_t tile = job / static_cast<unsigned>(w.chunks);
  const std::int64_t chunk = job % static_cast<unsigned>(w.chunks);
  if (tile >= w.rows / kCodedTile) return;
  ChunkCodes<kKind> codes;
  codes.load(record_of(w.codes, tile, chunk),
             w.high.bytes > 0 ? record_of(w.high, tile, chunk) : nullptr, lane);
  ChunkRecords records;
  records.inner = record_of(w.inner, tile, chunk);
  if (w.inner_min.bytes > 0) records.inner_min = record_of(w.inner_min, tile, chunk);
  if (w.outer.bytes > 0) records.outer = record_of(w.outer, tile, chunk);
  if (w.outer_min.bytes > 0) records.outer_min = record_of(w.outer_min, tile, chunk);
#pragma unroll
  for (int step = 0; step < 4; ++step) {
    std::uint32_t a[4];
    codes.template decode<Code>(step, ChunkCodes<kKind>::template zero_of<Code>(w), a);
    RowScales scales;
    if constexpr (kFloat) {
      scales = row_scales(w, records, w.scaling == CodeScaling::kRow ? 0 : step, lane);
    } else {
      scale_fragment<T>(reinterpret_cast<const std::uint32_t*>(
                            records.inner)[(step >> step_shift(w)) * 8 + lane / 4],
                        a);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      T* const to = &own[lane / 4 + 8 * (i % 2)][kCodedStep * step + 2 * (lane % 4) + 8 * (i / 2)];
      if constexpr (kFloat) {
        const float2 code = __half22float2(*reinterpret_cast<const __half2*>(&a[i]));
        const float scale = i % 2 == 0 ? scales.scale.x : scales.scale.y;
        const float min = i % 2 == 0 ? scales.min.x : scales.min.y;
        to[0] = __fsub_rn(__fmul_rn(scale, code.x), min);
        to[1] = __fsub_rn(__fmul_rn(scale, code.y), min);
      } else {
        *reinterpret_cast<std::uint32_t*>(to) = a[i];
      }
    }
  }
  __syncwarp();
  constexpr int kWide = 16 / sizeof(T);  // elements of 16 bytes
  for (int i = lane; i < kCodedTile * kCodedChunk / kWide; i += 32) {
    const int r = i / (kCodedChunk / kWide);
    const int c = i % (kCodedChunk / kWide) * kWide;
    const std::int64_t row = tile * kCodedTile + r;
    const std::int64_t column = chunk * kCodedChunk + c;
    if (row >= n || column >= k) continue;
    *reinterpret_cast<uint4*>(values + row * k + column) =
        *reinterpret_cast<const uint4*>(&own[r][c]);
  }
}

template <typename T>
void launch_decode(const CodedMatrix& w, std::int64_t n, std::int64_t k, void* values,
                   cudaStream_t stream) {
  const std::int64_t jobs = w.rows / kCodedTile * w.chunks;
  const auto blocks = static_cast<unsigned>((jobs + kDecodeWarps - 1) / kDecodeWarps);
  const auto launch = [&](auto kernel) {
    kernel<<<blocks, 32 * kDecodeWarps, 0, stream>>>(w, n, k, static_cast<T*>(values));
    check_launch("decode_codes");
  };
  switch (w.kind) {
    case CodeKind::kU4:
      return launch(decode_kernel<CodeKind::kU4, T>);
    case CodeKind::kI8:
      return launch(decode_kernel<CodeKind::kI8, T>);
    default:
      break;
  }
  if constexpr (sizeof(T) == 4) {
    switch (w.kind) {
      case CodeKind::kU5:
        return launch(decode_kernel<CodeKind::kU5, T>);
      case CodeKind::kU6:
        return launch(decode_kernel<CodeKind::kU6, T>);
      case CodeKind::kE2m1:
        return launch(decode_kernel<CodeKind::kE2m1, T>);
      default:
        return launch(decode_kernel<CodeKind::kE4m3, T>);
    }
  }
}

}  // namespace

void decode_codes(const CodedMatrix& w, std::int64_t n, std::int64_t k, Type type, void* values,
                  StreamHandle stream) {
  if (type == Type::kFloat32) return launch_decode<float>(w, n, k, values, stream);
  if (type == Type::kBFloat16) return launch_decode<Bf16>(w, n, k, values, stream);
  launch_decode<Half>(w, n, k, values, stream);
}

}  // namespace attn::gpu
