#pragma once

#include <span>
#include <string_view>

#include "reference/core/trace.h"

namespace attn::harness {

/// What should notice a planted bug.
enum class Detector {
  kValue,        ///< an error above its bound in some stage
  kLse,          ///< lse alone, attn_out stays right
  kGuard,        ///< memory: a write or a read outside a tensor, an input that changed
  kPoison,       ///< NaN from an unused slot, an unwritten output
  kRepeat,       ///< two runs of one case differ bit for bit
  kSecondCall,   ///< only a call after a call with another case
  kScratch,      ///< only with scratch memory that holds NaN
  kGraphReplay,  ///< only a captured graph replayed with other lengths, pages or data
  kRefusal,      ///< runs a config that must be refused
  kGraph,        ///< only a captured graph
  kPadding,      ///< only a padded batch
};
std::string_view name_of(Detector detector);

/// One planted bug. The switch itself is in the sources that attn_faulty is built from; this is the
/// plain data about it, which every library may hold.
struct FaultInfo {
  std::string_view id;       ///< "kv_head_modulo"
  std::string_view summary;  ///< "query head mapped to kv head by modulo": completes "looks like: "
  Stage stage;               ///< the first stage that it spoils
  std::string_view trigger;  ///< the smallest config or data that shows it
  Detector detector;
  int row;                  ///< of the forty public bugs in docs/power.md; 0: our own
  std::string_view source;  ///< public report, "" for our own
  /// "" unless no observer can tell it from the right answer: then the proof. It then serves as a
  /// control against false alarms and is left out of the score.
  std::string_view equivalent_because;
};

/// Every fault, in a fixed order.
std::span<const FaultInfo> fault_catalogue();
/// Throws Error(kUsage) with the nearest known id.
const FaultInfo& find_fault(std::string_view id);

}  // namespace attn::harness
