#include "harness/backends/cuda_backend.h"

#include "reference/core/error.h"

#if ATTN_WITH_CUDA
#include "gpu/device/device.h"
#include "gpu/kernels/attention_hopper.h"
#include "harness/backends/cuda/layer_backend.h"
#endif

namespace attn::harness {

#if ATTN_WITH_CUDA

const std::string& cuda_unavailable_reason() {
  static const std::string kReason = gpu::device_unavailable_reason();
  return kReason;
}

std::string cuda_device_name() {
  return cuda_unavailable_reason().empty() ? gpu::device_info().name : "";
}

std::unique_ptr<Backend> make_cuda_backend(const CudaOptions& options) {
  if (const std::string& reason = cuda_unavailable_reason(); !reason.empty()) {
    throw Error(ErrorKind::kUnsupported, "cuda: " + reason, "backend");
  }
  const bool projection = options.hopper_projection || options.hopper_projection_always;
  const bool prefill = options.hopper_prefill || options.fp8_prefill;
  if (prefill || projection) {
    if (const std::string reason = gpu::hopper_device_refusal(); !reason.empty()) {
      const std::string word = options.fp8_prefill ? "prefill=fp8"
                               : prefill           ? "prefill=hopper"
                                                   : "projection=hopper";
      throw Error(ErrorKind::kUnsupported, "cuda:" + word + ": " + reason, "backend");
    }
  }
  return std::make_unique<CudaBackend>(options);
}

#else

std::unique_ptr<PreparedRuns> prepare_runs(const Case& /*c*/, const CudaOptions& /*options*/,
                                           int /*copies*/) {
  throw Error(ErrorKind::kUnsupported, "cuda: " + cuda_unavailable_reason(), "backend");
}

const std::string& cuda_unavailable_reason() {
  static const std::string kReason = "not built in (configure with a CUDA compiler, preset cuda)";
  return kReason;
}

std::string cuda_device_name() { return ""; }

std::unique_ptr<Backend> make_cuda_backend(const CudaOptions& /*options*/) {
  throw Error(ErrorKind::kUnsupported, "cuda: " + cuda_unavailable_reason(), "backend");
}

#endif

}  // namespace attn::harness
