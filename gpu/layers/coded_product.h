#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "gpu/kernels/coded_cluster_shape.h"
#include "gpu/kernels/coded_stream_shape.h"
#include "gpu/kernels/cublas_lt.h"
#include "gpu/layers/device_weights.h"
#include "gpu/layers/fp8_product.h"
#include "reference/core/devices.h"

namespace attn::gpu {

/// How one product with a weight that stayed codes is made.
struct CodedProductPlan {
  CodedGemmPlan gemm;
  CodedStreamPlan stream;    ///< taken: instead of quantising and gemm
  CodedClusterPlan cluster;  ///< taken: instead of gemm
  /// The weight is decoded to this type first, and the product is one of dense matrices: for
  /// float32 inputs, which 16 bits do not hold, and where the library's product of many rows is so
  /// much faster that it pays.
  bool decodes = false;
  Type decoded_type = Type::kFloat32;
  std::shared_ptr<const CublasLtGemm> dense;  ///< null: our own kernel
  Fp8ProductPlan fp8;                         ///< taken(): instead of all that
};

/// Bytes that one product needs; products of a layer run one after another and share them.
struct CodedSpace {
  std::size_t codes = 0, scales = 0, sums = 0, gathered = 0, decoded = 0, partials = 0, padded = 0,
              library = 0;

  void include(const CodedSpace& other);
};

/// The same as device memory, from a workspace.
struct CodedMemory {
  void* codes = nullptr;
  float* scales = nullptr;
  float* sums = nullptr;
  void* gathered = nullptr;
  void* decoded = nullptr;
  float* partials = nullptr;
  void* padded = nullptr;  ///< y with more rows
  void* library = nullptr;
  unsigned* counters = nullptr;  ///< kCodedCounters zeros

  CodedMemory() = default;
  CodedMemory(const CodedSpace& space, Arena& arena);
};

struct CodedProductOptions {
  bool cublas = true;
  Fp8Products fp8 = Fp8Products::kAuto;
  int tile = 0;  ///< of the wgmma kernel: 0 chooses
  int multiprocessors = 0;
  /// kNever where the input is several slices.
  CodedStreams streams = CodedStreams::kNever;
  CodedClusters clusters = CodedClusters::kNever;
};

/// `shape`: m, n, k and out_type of the product, whose input has that type. `plain`: the weight's
/// codes for cuBLASLt, or none; a plan that takes them is used while they live.
CodedProductPlan plan_coded_product(const CodedWeight& weight, const Fp8Weight* plain,
                                    const InputFormat& format, const GemmArguments& shape,
                                    const CodedProductOptions& options);
CodedSpace coded_space(const CodedProductPlan& plan, const CodedWeight& weight,
                       const InputFormat& format, const GemmArguments& shape);

/// product.y = clip(product.x w^T + bias); x as it comes, [m, k] of out_type, is quantised first
/// where `format` says so, each of `slices` of its columns by itself.
void run_coded_product(const CodedProductPlan& plan, const CodedWeight& weight,
                       const InputFormat& format, const GemmArguments& product,
                       const std::vector<Range>& slices, const CodedMemory& memory,
                       StreamHandle stream);

/// cuBLASLt for a product of dense matrices, null where it is small or not aligned.
std::shared_ptr<const CublasLtGemm> plan_product(const GemmArguments& shape, bool has_bias);

}  // namespace attn::gpu
