#pragma once

#include <cublasLt.h>

#include <cstddef>
#include <string>

#include "gpu/kernels/types.h"

namespace attn::gpu {

/// Enough for split-K of every shape that its heuristic wants, as the library's manual advises for
/// Hopper.
inline constexpr std::size_t kCublasLtWorkspaceBytes = std::size_t{32} << 20;

/// The functions that are used, by their types in the header.
struct CublasLtApi {
  decltype(&cublasLtCreate) create = nullptr;
  decltype(&cublasLtMatmul) matmul = nullptr;
  decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic = nullptr;
  decltype(&cublasLtMatmulDescCreate) desc_create = nullptr;
  decltype(&cublasLtMatmulDescDestroy) desc_destroy = nullptr;
  decltype(&cublasLtMatmulDescSetAttribute) desc_set = nullptr;
  decltype(&cublasLtMatrixLayoutCreate) layout_create = nullptr;
  decltype(&cublasLtMatrixLayoutDestroy) layout_destroy = nullptr;
  decltype(&cublasLtMatmulPreferenceCreate) preference_create = nullptr;
  decltype(&cublasLtMatmulPreferenceDestroy) preference_destroy = nullptr;
  decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set = nullptr;
};

/// cuBLASLt, loaded when it is first asked for and never unloaded.
struct CublasLtLibrary {
  std::string path;  ///< "" where it was not found, and then `why` not
  std::string why;
  CublasLtApi api;
  cublasLtHandle_t handle = nullptr;

  static const CublasLtLibrary& instance();
  CublasLtLibrary(const CublasLtLibrary&) = delete;
  CublasLtLibrary& operator=(const CublasLtLibrary&) = delete;

  /// The algorithm that the heuristic prefers, false where it has none. Parts of a sum stay in
  /// float32 until they are added.
  bool choose(cublasLtMatmulDesc_t product, cublasLtMatrixLayout_t w, cublasLtMatrixLayout_t x,
              cublasLtMatrixLayout_t y, cublasLtMatmulHeuristicResult_t& chosen) const;

 private:
  CublasLtLibrary();
};

/// y [m, n] = x [m, k] w [n, k]^T in row order is, in the library's column order, the n x m matrix
/// w^T x with w and x both k long in their leading dimension.
struct CublasLtLayouts {
  cublasLtMatrixLayout_t w = nullptr;
  cublasLtMatrixLayout_t x = nullptr;
  cublasLtMatrixLayout_t y = nullptr;

  CublasLtLayouts(Type in, Type out, std::int64_t m, std::int64_t n, std::int64_t k);
  ~CublasLtLayouts();
  CublasLtLayouts(const CublasLtLayouts&) = delete;
  CublasLtLayouts& operator=(const CublasLtLayouts&) = delete;
};

/// Throws Error(kInternal) that names `what`.
void check_cublas_lt(cublasStatus_t status, const char* what);

}  // namespace attn::gpu
