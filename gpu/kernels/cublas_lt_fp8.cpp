#include "gpu/kernels/cublas_lt_fp8.h"

#include "gpu/kernels/cublas_lt_library.h"

namespace attn::gpu {

#if CUBLAS_VERSION >= 120900  // scales of rows and blocks

namespace {

const CublasLtLibrary& library() { return CublasLtLibrary::instance(); }

/// The library's scale modes of w, its A, and of x, its B.
struct ScaleModes {
  std::int32_t w;
  std::int32_t x;
};
ScaleModes modes_of(Fp8Scaling scaling) {
  switch (scaling) {
    case Fp8Scaling::kRows:
      return {CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F,
              CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F};
    case Fp8Scaling::kBlocks:
      return {CUBLASLT_MATMUL_MATRIX_SCALE_BLK128x128_32F, CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F};
    case Fp8Scaling::kRowBlocks:
      return {CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F, CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F};
    case Fp8Scaling::kTensor:
      break;
  }
  return {CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F, CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F};
}

/// What the library calls the operation. It holds the addresses of scales and bias, which differ
/// from run to run and from thread to thread, so every run makes its own: host memory, filled in.
class Product {
 public:
  explicit Product(const Fp8GemmArguments& a) {
    check_cublas_lt(library().api.desc_create(&product_, CUBLAS_COMPUTE_32F, CUDA_R_32F), kWhat);
    try {
      fill(a);
    } catch (...) {
      library().api.desc_destroy(product_);
      throw;
    }
  }
  ~Product() { library().api.desc_destroy(product_); }
  Product(const Product&) = delete;
  Product& operator=(const Product&) = delete;

  cublasLtMatmulDesc_t get() const { return product_; }

 private:
  static constexpr const char* kWhat = "a float8 product's descriptor";

  template <typename Value>
  void set(cublasLtMatmulDescAttributes_t attribute, const Value& value) {
    check_cublas_lt(library().api.desc_set(product_, attribute, &value, sizeof value), kWhat);
  }
  void fill(const Fp8GemmArguments& a) {
    set(CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T);
    set(CUBLASLT_MATMUL_DESC_FAST_ACCUM, std::int8_t{0});
    if (a.bias != nullptr) {
      set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
      set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, a.bias);
    }
    if (a.scaling == Fp8Scaling::kTensor) return;  // by alpha
    const ScaleModes modes = modes_of(a.scaling);
    set(CUBLASLT_MATMUL_DESC_A_SCALE_MODE, modes.w);
    set(CUBLASLT_MATMUL_DESC_B_SCALE_MODE, modes.x);
    set(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, static_cast<const void*>(a.w_scale));
    // While planning x has no scales yet: any address stands for them.
    const float* const x_scale = a.x_scale != nullptr ? a.x_scale : a.w_scale;
    set(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, static_cast<const void*>(x_scale));
  }

  cublasLtMatmulDesc_t product_ = nullptr;
};

}  // namespace

bool has_cublas_lt_fp8() {
  static const bool kHas = [] {
    if (library().path.empty() || !device_unavailable_reason().empty()) return false;
    const DeviceInfo device = device_info();
    return device.major == 9 && device.minor == 0;
  }();
  return kHas;
}

struct CublasLtFp8::Descriptors {
  explicit Descriptors(const Fp8GemmArguments& a)
      : layouts(Type::kFloat8E4M3, a.out_type, a.m, a.n, a.k) {}

  CublasLtLayouts layouts;
  cublasLtMatmulHeuristicResult_t chosen = {};
};

std::shared_ptr<const CublasLtFp8> CublasLtFp8::plan(const Fp8GemmArguments& shape) {
  if (library().path.empty() || shape.m == 0) return nullptr;
  auto d = std::make_unique<Descriptors>(shape);
  const Product product(shape);
  const CublasLtLayouts& l = d->layouts;
  if (!library().choose(product.get(), l.w, l.x, l.y, d->chosen)) return nullptr;
  return std::shared_ptr<const CublasLtFp8>(new CublasLtFp8(std::move(d)));
}

void CublasLtFp8::run(const Fp8GemmArguments& a, void* workspace, StreamHandle stream) const {
  const Product product(a);
  const Descriptors& d = *descriptors_;
  const float scale = a.scaling == Fp8Scaling::kTensor ? a.scale : 1.0f;
  const float zero = 0.0f;
  const CublasLtLayouts& l = d.layouts;
  check_cublas_lt(library().api.matmul(library().handle, product.get(), &scale, a.w, l.w, a.x, l.x,
                                       &zero, a.y, l.y, a.y, l.y, &d.chosen.algo, workspace,
                                       d.chosen.workspaceSize, stream),
                  "cublasLtMatmul of float8 codes");
}

#else

bool has_cublas_lt_fp8() { return false; }

struct CublasLtFp8::Descriptors {
  struct {
    std::size_t workspaceSize = 0;
  } chosen;
};

std::shared_ptr<const CublasLtFp8> CublasLtFp8::plan(const Fp8GemmArguments& /*shape*/) {
  return nullptr;
}

void CublasLtFp8::run(const Fp8GemmArguments& /*a*/, void* /*workspace*/,
                      StreamHandle /*stream*/) const {}

#endif

CublasLtFp8::CublasLtFp8(std::unique_ptr<Descriptors> descriptors)
    : descriptors_(std::move(descriptors)) {}
CublasLtFp8::~CublasLtFp8() = default;

std::size_t CublasLtFp8::workspace_bytes() const { return descriptors_->chosen.workspaceSize; }

}  // namespace attn::gpu
