// Compiled into libattn_faulty_cuda.so only: the CUDA backend with one of the planted bugs on.

#include <map>
#include <mutex>
#include <string>
#include <utility>

#include "gpu/device/device.h"
#include "gpu/faults/fault_control.h"
#include "harness/backends/cuda/layer_backend.h"
#include "harness/faults/library/faulty_entry.h"
#include "reference/core/error.h"

namespace attn::harness {
namespace {

/// The switches are the process's, and so is the device: one run at a time.
std::mutex& one_run() {
  static std::mutex mutex;
  return mutex;
}

std::map<std::string, std::int64_t, std::less<>>& totals() {
  static std::map<std::string, std::int64_t, std::less<>> counts;
  return counts;
}

thread_local std::int64_t last_reached = 0;

/// Our own products, whose order of sums is known, and keys in two parts, so that short cases have
/// parts to combine.
CudaOptions options() {
  CudaOptions result;
  result.cublas = false;
  result.splits = 2;
  return result;
}

class FaultyCudaBackend final : public Backend {
 public:
  explicit FaultyCudaBackend(std::string id) : id_(std::move(id)), inner_(options()) {}

  std::string name() const override { return "faulty_cuda:" + id_; }
  std::string unsupported_reason(const AttentionConfig& config) const override {
    return inner_.unsupported_reason(config);
  }
  Arithmetic arithmetic(const AttentionConfig& config) const override {
    return inner_.arithmetic(config);
  }
  bool has_device_modes() const override { return true; }
  Trace run(const Case& c, std::span<const Stage> wanted) const override {
    return *run_as(ExecMode::kPlain, c, nullptr, wanted);
  }
  std::optional<Trace> run_as(ExecMode mode, const Case& c, const Case* other,
                              std::span<const Stage> wanted) const override {
    const std::lock_guard lock(one_run());
    gpu::switch_fault(id_);
    try {
      auto trace = inner_.run_as(mode, c, other, wanted);
      count();
      return trace;
    } catch (const std::exception& error) {
      if (!gpu::device_still_answers()) {
        throw Error(ErrorKind::kInternal,
                    "the device was lost with " + name() + ": " + error.what(), kDeviceLost);
      }
      count();
      throw;
    }
  }

 private:
  void count() const {
    last_reached = gpu::reached_since_switch();
    totals()[id_] += last_reached;
  }

  std::string id_;
  CudaBackend inner_;
};

std::span<const std::string_view> ids() { return gpu::fault_ids(); }

std::unique_ptr<Backend> make(std::string_view id, std::int64_t /*block*/) {
  if (const std::string reason = gpu::device_unavailable_reason(); !reason.empty()) {
    throw Error(ErrorKind::kUnsupported, "cuda: " + reason, "backend");
  }
  const std::lock_guard lock(one_run());
  if (!gpu::switch_fault(id)) return nullptr;
  return std::make_unique<FaultyCudaBackend>(std::string(id));
}

std::int64_t reached(std::string_view id) {
  const std::lock_guard lock(one_run());
  const auto count = totals().find(id);
  return count == totals().end() ? 0 : count->second;
}

std::int64_t reached_by_last_run() { return last_reached; }

}  // namespace
}  // namespace attn::harness

extern "C" [[gnu::visibility("default")]] const attn::harness::FaultyEntry* attn_faulty_entry() {
  static const attn::harness::FaultyEntry entry{
      attn::harness::FaultyEntry::kLayout, attn::harness::ids, attn::harness::make,
      attn::harness::reached, attn::harness::reached_by_last_run};
  return &entry;
}
