#include "gpu/kernels/cublas_lt.h"

#include "gpu/kernels/cublas_lt_library.h"

namespace attn::gpu {
namespace {

const CublasLtLibrary& library() { return CublasLtLibrary::instance(); }

}  // namespace

const std::string& cublas_lt_path(std::string* why) {
  if (why != nullptr) *why = library().why;
  return library().path;
}

struct CublasLtGemm::Descriptors {
  explicit Descriptors(const GemmArguments& shape)
      : layouts(shape.type, shape.type, shape.m, shape.n, shape.k) {}
  ~Descriptors() {
    if (product != nullptr) library().api.desc_destroy(product);
  }
  Descriptors(const Descriptors&) = delete;
  Descriptors& operator=(const Descriptors&) = delete;

  cublasLtMatmulDesc_t product = nullptr;
  CublasLtLayouts layouts;
  cublasLtMatmulHeuristicResult_t chosen = {};
  bool has_bias = false;
};

CublasLtGemm::CublasLtGemm(std::unique_ptr<Descriptors> descriptors)
    : descriptors_(std::move(descriptors)) {}
CublasLtGemm::~CublasLtGemm() = default;

std::size_t CublasLtGemm::workspace_bytes() const { return descriptors_->chosen.workspaceSize; }

std::shared_ptr<const CublasLtGemm> CublasLtGemm::plan(const GemmArguments& shape, bool has_bias) {
  if (library().path.empty() || shape.m == 0) return nullptr;
  const CublasLtApi& api = library().api;
  auto d = std::make_unique<Descriptors>(shape);
  d->has_bias = has_bias;
  check_cublas_lt(api.desc_create(&d->product, CUBLAS_COMPUTE_32F, CUDA_R_32F),
                  "a product's descriptor");
  const cublasOperation_t transposed = CUBLAS_OP_T;
  check_cublas_lt(
      api.desc_set(d->product, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed),
      "a product's descriptor");
  if (has_bias) {
    const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
    check_cublas_lt(
        api.desc_set(d->product, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue),
        "a product's descriptor");
  }
  const CublasLtLayouts& l = d->layouts;
  if (!library().choose(d->product, l.w, l.x, l.y, d->chosen)) return nullptr;
  return std::shared_ptr<const CublasLtGemm>(new CublasLtGemm(std::move(d)));
}

void CublasLtGemm::run(const GemmArguments& a, const void* bias, void* workspace,
                       StreamHandle stream) const {
  const CublasLtApi& api = library().api;
  const Descriptors& d = *descriptors_;
  if (d.has_bias) {
    // The pointer is part of the descriptor. A plan belongs to a layer and the bias is the layer's,
    // so every run of the plan sets the same one.
    check_cublas_lt(api.desc_set(d.product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias),
                    "a bias pointer");
  }
  const float one = 1.0f;
  const float zero = 0.0f;
  const CublasLtLayouts& l = d.layouts;
  check_cublas_lt(api.matmul(library().handle, d.product, &one, a.w, l.w, a.x, l.x, &zero, a.y, l.y,
                             a.y, l.y, &d.chosen.algo, workspace, d.chosen.workspaceSize, stream),
                  "cublasLtMatmul");
}

}  // namespace attn::gpu
