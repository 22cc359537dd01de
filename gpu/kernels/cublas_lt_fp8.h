#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "gpu/device/device.h"
#include "gpu/kernels/types.h"

namespace attn::gpu {

/// Where the scales of a product of e4m3 codes enter. L = k / 128.
enum class Fp8Scaling : std::uint8_t {
  kTensor,     ///< one number for x and w together
  kRows,       ///< x_scale [m], w_scale [n], after the sum
  kBlocks,     ///< sums of 128 products each: x_scale [L, m], w_scale [ceil(n/128), ceil4(L)]
  kRowBlocks,  ///< the same, w_scale [L, n]: other heights of blocks than 128
};

/// y = round(scales * (x w^T) + bias): x [m, k] and w [n, k] codes, k and n multiples of 16. Both
/// kinds of blocks want m and n in multiples of 4.
struct Fp8GemmArguments {
  Fp8Scaling scaling = Fp8Scaling::kTensor;
  const void* x = nullptr;
  const void* w = nullptr;
  float scale = 1.0f;              ///< kTensor
  const float* x_scale = nullptr;  ///< else; at a multiple of 16 bytes, like all the pointers
  const float* w_scale = nullptr;
  const void* bias = nullptr;  ///< [n] of out_type or none; not with float32
  void* y = nullptr;           ///< [m, n]
  Type out_type = Type::kBFloat16;
  std::int64_t m = 0;
  std::int64_t n = 0;
  std::int64_t k = 0;
};

/// True when the library is there, knows these scalings (12.9 on) and runs them on the device
/// (compute capability 9.0). Asked once.
bool has_cublas_lt_fp8();

/// One product of codes on the float8 tensor cores by cuBLASLt. Their accumulators have 14 bits and
/// are added to float32 ones every 128 products: fast accumulation is off.
class CublasLtFp8 {
 public:
  /// The shape, the types, whether there is a bias, and w_scale (as an address that is no null) are
  /// read. Null where the library is not there or has no algorithm.
  static std::shared_ptr<const CublasLtFp8> plan(const Fp8GemmArguments& shape);
  ~CublasLtFp8();
  CublasLtFp8(const CublasLtFp8&) = delete;
  CublasLtFp8& operator=(const CublasLtFp8&) = delete;

  std::size_t workspace_bytes() const;
  /// Launches on `stream` only. From several threads at once.
  void run(const Fp8GemmArguments& arguments, void* workspace, StreamHandle stream) const;

 private:
  struct Descriptors;
  explicit CublasLtFp8(std::unique_ptr<Descriptors> descriptors);
  std::unique_ptr<Descriptors> descriptors_;
};

}  // namespace attn::gpu
