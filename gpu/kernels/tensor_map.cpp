#include "gpu/kernels/tensor_map.h"

#include <cuda_runtime_api.h>

#include <sstream>

#include "gpu/device/check.h"
#include "reference/core/error.h"

namespace attn::gpu {
namespace {

using Encode = CUresult (*)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*, const cuuint64_t*,
                            const cuuint64_t*, const cuuint32_t*, const cuuint32_t*,
                            CUtensorMapInterleave, CUtensorMapSwizzle, CUtensorMapL2promotion,
                            CUtensorMapFloatOOBfill);

/// The driver is not linked, so that programs start without one.
Encode encoder() {
  static const Encode kEncode = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
    check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000,
                                           cudaEnableDefault, &found),
          "cudaGetDriverEntryPoint");
    if (found != cudaDriverEntryPointSuccess || function == nullptr) {
      throw Error(ErrorKind::kInternal,
                  "cuda: the driver has no cuTensorMapEncodeTiled; it needs one of CUDA 12.0");
    }
    return reinterpret_cast<Encode>(function);
  }();
  return kEncode;
}

CUtensorMapDataType map_type(Type type) {
  if (type == Type::kFloat8E4M3) return CU_TENSOR_MAP_DATA_TYPE_UINT8;
  return type == Type::kFloat16 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16
                                : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
}

template <int kRank>
CUtensorMap encode(const TensorMapShape<kRank>& shape) {
  std::array<std::uint32_t, kRank> steps{};
  steps.fill(1);
  CUtensorMap map = {};
  const CUresult result =
      encoder()(&map, map_type(shape.type), kRank, const_cast<void*>(shape.base),
                shape.sizes.data(), shape.strides.data(), shape.box.data(), steps.data(),
                CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result == CUDA_SUCCESS) return map;
  std::ostringstream message;
  message << "cuda: cuTensorMapEncodeTiled failed with status " << static_cast<int>(result)
          << " for sizes";
  for (const std::uint64_t size : shape.sizes) message << ' ' << size;
  message << ", strides";
  for (const std::uint64_t stride : shape.strides) message << ' ' << stride;
  message << ", box";
  for (const std::uint32_t size : shape.box) message << ' ' << size;
  throw Error(ErrorKind::kInternal, message.str());
}

}  // namespace

CUtensorMap make_tensor_map(const TensorMapShape<3>& shape) { return encode(shape); }
CUtensorMap make_tensor_map(const TensorMapShape<4>& shape) { return encode(shape); }

}  // namespace attn::gpu
