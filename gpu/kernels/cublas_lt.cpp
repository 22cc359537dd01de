#include "gpu/kernels/cublas_lt.h"

#include <cublasLt.h>
#include <dlfcn.h>

#include <cstdlib>
#include <vector>

#include "reference/core/error.h"

namespace attn::gpu {
namespace {

// Enough for split-K of every shape that its heuristic wants, as the library's manual advises for
// Hopper.
constexpr std::size_t kWorkspaceBytes = std::size_t{32} << 20;

/// The functions that are used, by their types in the header.
struct Api {
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

/// Loaded once and never unloaded.
struct Library {
  std::string path;
  std::string why;
  Api api;
  cublasLtHandle_t handle = nullptr;

  Library();
};

template <typename Function>
bool find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  return function != nullptr;
}

bool find_all(void* library, Api& api) {
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

Library::Library() {
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

const Library& library() {
  static const Library kLibrary;
  return kLibrary;
}

void check_lt(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw Error(ErrorKind::kInternal, std::string("cuda: ") + what + " failed with cuBLAS status " +
                                        std::to_string(static_cast<int>(status)));
}

cudaDataType_t data_type(Type type) {
  return type == Type::kFloat32 ? CUDA_R_32F : type == Type::kBFloat16 ? CUDA_R_16BF : CUDA_R_16F;
}

}  // namespace

const std::string& cublas_lt_path(std::string* why) {
  if (why != nullptr) *why = library().why;
  return library().path;
}

/// y [m, n] = x [m, k] w [n, k]^T in row order is, in the library's column order, the n x m matrix
/// w^T x with w and x both k long in their leading dimension.
struct CublasLtGemm::Descriptors {
  cublasLtMatmulDesc_t product = nullptr;
  cublasLtMatrixLayout_t w = nullptr;
  cublasLtMatrixLayout_t x = nullptr;
  cublasLtMatrixLayout_t y = nullptr;
  cublasLtMatmulHeuristicResult_t chosen = {};
  bool has_bias = false;

  ~Descriptors() {
    const Api& api = library().api;
    if (y != nullptr) api.layout_destroy(y);
    if (x != nullptr) api.layout_destroy(x);
    if (w != nullptr) api.layout_destroy(w);
    if (product != nullptr) api.desc_destroy(product);
  }
};

CublasLtGemm::CublasLtGemm(std::unique_ptr<Descriptors> descriptors)
    : descriptors_(std::move(descriptors)) {}
CublasLtGemm::~CublasLtGemm() = default;

std::size_t CublasLtGemm::workspace_bytes() const { return descriptors_->chosen.workspaceSize; }

std::shared_ptr<const CublasLtGemm> CublasLtGemm::plan(const GemmArguments& shape, bool has_bias) {
  if (library().path.empty() || shape.m == 0) return nullptr;
  const Api& api = library().api;
  auto d = std::make_unique<Descriptors>();
  d->has_bias = has_bias;
  const cudaDataType_t type = data_type(shape.type);
  check_lt(api.desc_create(&d->product, CUBLAS_COMPUTE_32F, CUDA_R_32F), "a product's descriptor");
  const cublasOperation_t transposed = CUBLAS_OP_T;
  check_lt(api.desc_set(d->product, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed),
           "a product's descriptor");
  if (has_bias) {
    const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
    check_lt(api.desc_set(d->product, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue),
             "a product's descriptor");
  }
  const auto m = static_cast<std::uint64_t>(shape.m);
  const auto n = static_cast<std::uint64_t>(shape.n);
  const auto k = static_cast<std::uint64_t>(shape.k);
  check_lt(api.layout_create(&d->w, type, k, n, shape.k), "a matrix layout");
  check_lt(api.layout_create(&d->x, type, k, m, shape.k), "a matrix layout");
  check_lt(api.layout_create(&d->y, type, n, m, shape.n), "a matrix layout");

  cublasLtMatmulPreference_t preference = nullptr;
  check_lt(api.preference_create(&preference), "a preference");
  // Parts of a sum stay in float32 until they are added.
  const std::uint32_t reductions =
      CUBLASLT_REDUCTION_SCHEME_NONE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
  api.preference_set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &kWorkspaceBytes,
                     sizeof kWorkspaceBytes);
  api.preference_set(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reductions,
                     sizeof reductions);
  int found = 0;
  const cublasStatus_t status = api.heuristic(library().handle, d->product, d->w, d->x, d->y, d->y,
                                              preference, 1, &d->chosen, &found);
  api.preference_destroy(preference);
  if (status != CUBLAS_STATUS_SUCCESS || found == 0) return nullptr;
  return std::shared_ptr<const CublasLtGemm>(new CublasLtGemm(std::move(d)));
}

void CublasLtGemm::run(const GemmArguments& a, const void* bias, void* workspace,
                       StreamHandle stream) const {
  const Api& api = library().api;
  const Descriptors& d = *descriptors_;
  if (d.has_bias) {
    // The pointer is part of the descriptor. A plan belongs to a layer and the bias is the layer's,
    // so every run of the plan sets the same one.
    check_lt(api.desc_set(d.product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias),
             "a bias pointer");
  }
  const float one = 1.0f;
  const float zero = 0.0f;
  check_lt(api.matmul(library().handle, d.product, &one, a.w, d.w, a.x, d.x, &zero, a.y, d.y, a.y,
                      d.y, &d.chosen.algo, workspace, d.chosen.workspaceSize, stream),
           "cublasLtMatmul");
}

}  // namespace attn::gpu
