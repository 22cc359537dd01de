#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "gpu/kernels/gemm.h"

namespace attn::gpu {

/// Where cuBLASLt was loaded from, or "" with the reason in `why`. It is looked for once: the file
/// that ATTN_CUBLASLT names, the loader's own search, then /usr/local/cuda. A program without it
/// uses gemm().
const std::string& cublas_lt_path(std::string* why = nullptr);

/// One product of gemm.h's form, planned for cuBLASLt: descriptors and the algorithm that its
/// heuristic prefers. Host memory only.
class CublasLtGemm {
 public:
  /// The shape, type and whether there is a bias are read from `shape`; pointers and clip are not.
  /// Null when the library is not there or has no algorithm: the caller uses gemm().
  static std::shared_ptr<const CublasLtGemm> plan(const GemmArguments& shape, bool has_bias);
  ~CublasLtGemm();
  CublasLtGemm(const CublasLtGemm&) = delete;
  CublasLtGemm& operator=(const CublasLtGemm&) = delete;

  std::size_t workspace_bytes() const;
  /// Like gemm(), but `bias` is of the arguments' type (arguments.bias is not read), and clip is
  /// not applied.
  void run(const GemmArguments& arguments, const void* bias, void* workspace,
           StreamHandle stream) const;

 private:
  struct Descriptors;
  explicit CublasLtGemm(std::unique_ptr<Descriptors> descriptors);
  std::unique_ptr<Descriptors> descriptors_;
};

}  // namespace attn::gpu
