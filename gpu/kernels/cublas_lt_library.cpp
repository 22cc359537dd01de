#include "gpu/kernels/cublas_lt_library.h"

#include <dlfcn.h>

#include <cstdlib>
#include <vector>

#include "reference/core/error.h"

namespace attn::gpu {
namespace {

template <typename Function>
bool find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  return function != nullptr;
}

bool find_all(void* library, CublasLtApi& api) {
  return find(library, "cublasLtCreate", api.create) &&
         find(library, "cublasLtMatmul", api.matmul) &&
         find(library, "cublasLtMatmulAlgoGetHeuristic", api.heuristic) &&
         find(library, "cublasLtMatmulDescCreate", api.desc_create) &&
         find(library, "cublasLtMatmulDescDestroy", api.desc_destroy) &&
         find(library, "cublasLtMatmulDescSetAttribute", api.desc_set) &&
         find(library, "cublasLtMatrixLayoutCreate", api.layout_create) &&
         find(library, "cublasLtMatrixLayoutDestroy", api.layout_destroy) &&
         find(library, "cublasLtMatmulPreferenceCreate", api.preference_create) &&
         find(library, "cublasLtMatmulPreferenceDestroy", api.preference_destroy) &&
         find(library, "cublasLtMatmulPreferenceSetAttribute", api.preference_set);
}

cudaDataType_t data_type(Type type) {
  switch (type) {
    case Type::kFloat32:
      return CUDA_R_32F;
    case Type::kBFloat16:
      return CUDA_R_16BF;
    case Type::kFloat16:
      return CUDA_R_16F;
    case Type::kFloat8E4M3:
      break;
  }
  return CUDA_R_8F_E4M3;
}

}  // namespace

CublasLtLibrary::CublasLtLibrary() {
  const std::string name = "libcublasLt.so." + std::to_string(CUBLAS_VER_MAJOR);
  std::vector<std::string> places{name, "/usr/local/cuda/lib64/" + name};
  if (const char* const given = std::getenv("ATTN_CUBLASLT")) places.insert(places.begin(), given);
  for (const std::string& place : places) {
    void* const library = dlopen(place.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
      why = dlerror();
      continue;
    }
    if (!find_all(library, api)) {
      why = place + " lacks a function";
    } else if (api.create(&handle) != CUBLAS_STATUS_SUCCESS) {
      why = place + ": cublasLtCreate failed";
    } else {
      path = place;
      why.clear();
      return;
    }
    dlclose(library);
  }
}

const CublasLtLibrary& CublasLtLibrary::instance() {
  static const CublasLtLibrary kLibrary;
  return kLibrary;
}

bool CublasLtLibrary::choose(cublasLtMatmulDesc_t product, cublasLtMatrixLayout_t w,
                             cublasLtMatrixLayout_t x, cublasLtMatrixLayout_t y,
                             cublasLtMatmulHeuristicResult_t& chosen) const {
  cublasLtMatmulPreference_t preference = nullptr;
  check_cublas_lt(api.preference_create(&preference), "a preference");
  const std::uint32_t reductions =
      CUBLASLT_REDUCTION_SCHEME_NONE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
  api.preference_set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &kCublasLtWorkspaceBytes,
                     sizeof kCublasLtWorkspaceBytes);
  api.preference_set(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reductions,
                     sizeof reductions);
  int found = 0;
  const cublasStatus_t status =
      api.heuristic(handle, product, w, x, y, y, preference, 1, &chosen, &found);
  api.preference_destroy(preference);
  return status == CUBLAS_STATUS_SUCCESS && found > 0;
}

CublasLtLayouts::CublasLtLayouts(Type in, Type out, std::int64_t m, std::int64_t n,
                                 std::int64_t k) {
  const CublasLtApi& api = CublasLtLibrary::instance().api;
  const auto unsigned_of = [](std::int64_t size) { return static_cast<std::uint64_t>(size); };
  check_cublas_lt(api.layout_create(&w, data_type(in), unsigned_of(k), unsigned_of(n), k),
                  "a matrix layout");
  check_cublas_lt(api.layout_create(&x, data_type(in), unsigned_of(k), unsigned_of(m), k),
                  "a matrix layout");
  check_cublas_lt(api.layout_create(&y, data_type(out), unsigned_of(n), unsigned_of(m), n),
                  "a matrix layout");
}

CublasLtLayouts::~CublasLtLayouts() {
  const CublasLtApi& api = CublasLtLibrary::instance().api;
  for (const cublasLtMatrixLayout_t layout : {y, x, w}) {
    if (layout != nullptr) api.layout_destroy(layout);
  }
}

void check_cublas_lt(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw Error(ErrorKind::kInternal, std::string("cuda: ") + what + " failed with cuBLAS status " +
                                        std::to_string(static_cast<int>(status)));
}

}  // namespace attn::gpu
