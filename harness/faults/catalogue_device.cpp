#include <algorithm>
#include <array>
#include <vector>

#include "harness/faults/device_run.h"
#include "reference/core/error.h"

namespace attn::harness {
namespace {

constexpr std::array kFaults = {
    FaultInfo{"counters_not_reset", "counters of finished splits not reset", Stage::kLse,
              "split keys of a decode call, a second run in the same workspace", Detector::kRepeat,
              27, "", ""},
    FaultInfo{"split_combined_early", "splits combined before the last of them is done",
              Stage::kLse, "split keys of a decode call", Detector::kPoison, 28, "", ""},
    FaultInfo{"dependent_launch_not_waited",
              "attention does not wait for the kernel that it may overlap", Stage::kLse,
              "a layer on compute capability 9.0", Detector::kPoison, 0, "", ""},
    FaultInfo{"launch_on_another_stream", "one kernel launched on a stream of its own",
              Stage::kQRope, "a layer in a captured graph", Detector::kGraph, 0, "", ""},
    FaultInfo{"allocation_in_run", "memory asked for in run", Stage::kLse, "a captured call",
              Detector::kGraph, 0, "", ""},
    FaultInfo{"wait_in_run", "run waits for its stream", Stage::kLse, "a captured call",
              Detector::kGraph, 0, "", ""},
    FaultInfo{"padding_rows_stored", "padding rows stored as a first token", Stage::kCacheK,
              "a padded batch", Detector::kPadding, 0, "", ""},
    FaultInfo{"padding_rows_not_cleared", "padding rows of the output left as they come",
              Stage::kOut, "a padded batch of a layer", Detector::kPadding, 0, "", ""},
    FaultInfo{"padding_rows_attended", "padding rows attended to as rows", Stage::kAttnOut,
              "a padded batch", Detector::kPadding, 0, "", ""},
};

}  // namespace

std::span<const FaultInfo> device_faults() { return kFaults; }

const FaultInfo& find_device_fault(std::string_view id) {
  std::vector<std::string> known;
  for (const std::span<const FaultInfo> part : {fault_catalogue(), device_faults()}) {
    const auto found = std::ranges::find(part, id, &FaultInfo::id);
    if (found != part.end()) return *found;
    for (const FaultInfo& fault : part) known.emplace_back(fault.id);
  }
  throw Error(ErrorKind::kUsage,
              "there is no fault \"" + std::string(id) + "\"" + hint(std::string(id), known),
              "--only");
}

}  // namespace attn::harness
