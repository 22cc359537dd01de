#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "gpu/device/device.h"
#include "gpu/kernels/cublas_lt_fp8.h"
#include "gpu/kernels/gemm.h"
#include "gpu/layers/coded_weights.h"
#include "gpu/layers/input_format.h"
#include "reference/core/config.h"

namespace attn::gpu {

/// Who multiplies float8 codes: cuBLASLt on the float8 tensor cores, or our own kernels, which
/// widen them to 16 bits.
enum class Fp8Products : std::uint8_t {
  kAuto,     ///< cuBLASLt from 2^20 weights and 17 rows on
  kOwn,      ///< never cuBLASLt
  kLibrary,  ///< cuBLASLt wherever its layouts and scales fit: for tests
};

// What decides, in three steps: the config (here), a weight's scales (plain_fp8) and the rows of a
// call (takes_fp8_library). cuBLASLt's own word, no algorithm, is the last.

/// True when cuBLASLt serves the product of q, k and v, or that of o, for some number of rows: both
/// sides float8 codes, widths and heights multiples of 16, scales as it has them, weights enough.
bool fp8_library_serves_qkv(const AttentionConfig& config, Fp8Products products);
bool fp8_library_serves_o(const AttentionConfig& config, Fp8Products products);

/// A weight's codes and scales as cuBLASLt reads them, in host memory.
struct PlainFp8 {
  Fp8Scaling scaling = Fp8Scaling::kTensor;
  InputFormat input;
  std::vector<std::uint8_t> codes;  ///< [n, k]
  std::vector<float> scales;        ///< as Fp8GemmArguments::w_scale
  float scale = 0.0f;               ///< kTensor: float32(activations' times weights')
  std::int64_t n = 0;
  std::int64_t k = 0;
};

/// Nothing where the scales do not fit those of cuBLASLt with an input of this format.
std::optional<PlainFp8> plain_fp8(const CodedRows& rows, const InputFormat& input);

/// The same on the device: a second copy of the codes beside that of CodedWeight.
struct Fp8Weight {
  Fp8Weight(const PlainFp8& plain, const Stream& stream);
  Fp8Scaling scaling = Fp8Scaling::kTensor;
  InputFormat input;
  float scale = 0.0f;
  Buffer codes;
  Buffer scales;
};

/// True when a product of these rows goes to cuBLASLt, given that its weight may.
bool takes_fp8_library(const GemmArguments& shape, Fp8Products products);

struct Fp8ProductPlan {
  std::shared_ptr<const CublasLtFp8> product;
  const Fp8Weight* weight = nullptr;
  std::int64_t padded_rows = 0;  ///< of the codes of x
  std::size_t code_bytes = 0;
  std::size_t scale_bytes = 0;
  std::size_t padded_bytes = 0;  ///< of a y with padded_rows, 0 where the rows need no padding

  bool taken() const { return product != nullptr; }
};

/// Asks cuBLASLt's heuristic, once.
Fp8ProductPlan plan_fp8_product(const Fp8Weight& weight, const GemmArguments& shape,
                                Fp8Products products);

/// Device memory as a plan asks for it.
struct Fp8Memory {
  void* codes = nullptr;
  float* scales = nullptr;
  void* padded = nullptr;
  void* library = nullptr;
};

/// a.y = clip(a.x w^T + a.typed_bias): quantises a.x, [m, k] of a.out_type, in one pass, and
/// multiplies.
void run_fp8_product(const Fp8ProductPlan& plan, const GemmArguments& a, const Fp8Memory& memory,
                     StreamHandle stream);

}  // namespace attn::gpu
