#pragma once

#include <functional>
#include <string>
#include <vector>

#include "harness/faults/fault_run.h"

namespace attn::harness {

/// The plug-in that holds the bugs of memory: named by ATTN_FAULTY_MEMORY, beside the program, or
/// where an installation has it. Throws Error(kUsage) when there is none.
std::string faulty_memory_plugin();

struct MemoryRunOptions {
  GatePlan plan;
  std::vector<FaultItem> items;  ///< those of fault_items that this run is to do
  int jobs = 1;
  std::function<void(std::int64_t done, std::int64_t of)> progress;  ///< called with a lock held
  /// Called once for each bug, from any thread, when its outcome is known.
  std::function<void(const FaultOutcome& outcome)> settled;
  std::function<bool()> stop;
};

/// Runs the gate's cases that start at attention, in their layouts, on every bug of memory, each in
/// worker processes; what it gives means what run_faults gives. `cases` counts those that the
/// plug-in takes. Only for programs that worker.h allows to have workers. Throws Error(kUsage).
FaultRun run_memory_faults(const MemoryRunOptions& options);

}  // namespace attn::harness
