#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "gpu/layers/layer.h"
#include "harness/backends/cuda_backend.h"
#include "harness/backends/layout_taker.h"
#include "harness/backends/padding.h"

namespace attn::harness {

gpu::LayerOptions layer_options_of(const CudaOptions& options);

/// What the layers leave in the rows of `out` (a layer), or of attn_out and lse (entry point
/// attention), that belong to no sequence. The cache is never written for them.
PaddingRows padding_rows(const AttentionConfig& config);

/// The layers of gpu/ as a backend, on the current device.
class CudaBackend final : public Backend, public LayoutTaker {
 public:
  explicit CudaBackend(const CudaOptions& options) : options_(options) {}

  std::string name() const override;
  std::string unsupported_reason(const AttentionConfig& config) const override;
  Arithmetic arithmetic(const AttentionConfig& config) const override;
  Trace run(const Case& c, std::span<const Stage> wanted) const override;
  std::optional<Trace> run_as(ExecMode mode, const Case& c, const Case* other,
                              std::span<const Stage> wanted) const override;
  bool has_device_modes() const override { return true; }
  /// The order of a page's axes, and where in the pool the pages lie.
  MemoryLayout taken(const AttentionConfig& /*config*/, const MemoryLayout& wanted) const override {
    MemoryLayout layout;
    layout.cache = wanted.cache;
    layout.pool_offset = wanted.pool_offset;
    return layout;
  }

 private:
  /// A stream and memory that grows; kept from run to run, because allocating costs more than a
  /// small case.
  struct Context {
    gpu::Stream stream;
    gpu::Buffer memory;
  };
  class Calls;

  gpu::LayerOptions layer_options() const { return layer_options_of(options_); }
  std::unique_ptr<Context> take_context() const;
  void give_back(std::unique_ptr<Context> context) const;

  CudaOptions options_;
  mutable std::mutex mutex_;
  mutable std::vector<std::unique_ptr<Context>> idle_;
};

}  // namespace attn::harness
