#pragma once

#include "harness/backends/cpu/attend.h"
#include "reference/core/case.h"
#include "reference/core/devices.h"
#include "reference/core/trace.h"

namespace attn::harness::cpu {

/// One device's part of a layer. `whole` owns the weights, of which the device reads the rows and
/// columns of its heads; everything else is the device's own, its cache included.
struct DeviceLayer {
  const Case& whole;
  const Case& local;  ///< head counts are the device's; has no weights but the sinks of its heads
  DeviceHeads heads;  ///< of `whole`
};

/// Runs the layer (or what of it local.config.entry_point asks for) and returns every stage but
/// freqs_cis, cache_k and cache_v, and the cache. `out` is the device's part of the sum.
Trace run_device(const DeviceLayer& device, const AttendOptions& options);

}  // namespace attn::harness::cpu
