#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "harness/backends/exec_mode.h"
#include "harness/compare/arithmetic.h"
#include "reference/core/case.h"
#include "reference/core/trace.h"

namespace attn::harness {

/// An implementation under test.
class Backend {
 public:
  virtual ~Backend() = default;
  virtual std::string name() const = 0;
  /// "" when this backend runs the config, else one line why not.
  virtual std::string unsupported_reason(const AttentionConfig& config) const = 0;
  /// What it computes in, for this config. Undeclared means strict.
  virtual Arithmetic arithmetic(const AttentionConfig& config) const = 0;
  /// Evaluates a validated, supported case. Returns at least the wanted stages it can offer;
  /// cache_k and cache_v come from the paged cache after the call, which it also returns whole when
  /// it can. Throws Error on failure. Never changes the case. Safe to call from several threads at
  /// once.
  virtual Trace run(const Case& c, std::span<const Stage> wanted) const = 0;
  /// run() in a mode that the backend arranges itself: those of devices, and all of them where it
  /// lives in another process. `other` is a case of the same config for the modes that need one,
  /// else null. Nothing: execute() arranges the mode by calls of run(), as far as that can be done.
  virtual std::optional<Trace> run_as(ExecMode /*mode*/, const Case& /*c*/, const Case* /*other*/,
                                      std::span<const Stage> /*wanted*/) const {
    return std::nullopt;
  }
  /// Whether run_as() arranges the modes of devices.
  virtual bool has_device_modes() const { return false; }
};

/// Makes a backend from a spec: "exact", "faithful", "cpu", "cpu:block=32,threads=3",
/// "./plugin.so", "py:FILE:NAME".
/// Throws Error(kUsage) with the nearest known name.
std::unique_ptr<Backend> make_backend(std::string_view spec);

struct BackendInfo {
  std::string name;
  std::string summary;
  std::string options;      ///< "block=N threads=N", "" for none
  std::string unavailable;  ///< "" when this machine can run it, else why not
};
std::vector<BackendInfo> list_backends();

}  // namespace attn::harness
