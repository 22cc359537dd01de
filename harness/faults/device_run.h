#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "harness/faults/fault_run.h"

namespace attn::harness {

/// Bugs that only the CUDA path can have: of graphs, of the order of launches, of padding.
std::span<const FaultInfo> device_faults();

/// What is known of a bug that libattn_faulty_cuda.so has a switch for: an entry of the catalogue,
/// or one of device_faults(). Throws Error(kUsage) with the nearest known id.
const FaultInfo& find_device_fault(std::string_view id);

struct DeviceFaultOptions {
  GatePlan plan;
  std::vector<std::string> only;  ///< ids; empty: all that the library has
  int jobs = 1;                   ///< cases that are judged at a time; the device runs one
  std::function<void(std::int64_t done, std::int64_t of)> progress;  ///< called with a lock held
  std::function<bool()> stop;
};

/// One bug of the CUDA path over a gate.
struct DeviceFaultOutcome {
  const FaultInfo* fault = nullptr;
  bool reached = false;
  bool infected = false;           ///< bits differ from the build without bugs in the same mode
  std::int64_t cases_to_kill = 0;  ///< 0: survived
  Attempt kill;
  std::string repro;
  bool killed() const { return cases_to_kill > 0; }
};

struct DeviceFaultRun {
  std::vector<DeviceFaultOutcome> outcomes;  ///< in the order of the library's list
  std::int64_t cases = 0;
  std::vector<std::string> false_alarms;  ///< of the build without bugs, by case
  double seconds = 0.0;
  bool stopped = false;

  std::int64_t killed() const;
};

/// Runs the gate's cases in order, each in the mode that fuzz deals to it, on every bug that is not
/// yet killed. Throws Error(kUsage), Error(kUnsupported) without a device, Error(kInternal) when a
/// bug broke the device.
DeviceFaultRun run_device_faults(const DeviceFaultOptions& options);

/// The run as data/gpu/DEVICE/faults.json holds it. `device` may be "".
std::string device_fault_json(const DeviceFaultRun& run, const std::string& gate,
                              const std::string& device, const std::string& commit);

}  // namespace attn::harness
