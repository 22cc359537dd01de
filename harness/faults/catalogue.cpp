#include "harness/faults/catalogue.h"

#include <algorithm>
#include <string>
#include <vector>

#include "harness/faults/catalogue_internal.h"
#include "reference/core/error.h"

namespace attn::harness {
namespace {

std::vector<FaultInfo> all_parts() {
  std::vector<FaultInfo> all;
  for (const auto part :
       {attention_faults(), cache_faults(), layer_faults(), weight_faults(), mode_faults()}) {
    all.insert(all.end(), part.begin(), part.end());
  }
  return all;
}

}  // namespace

std::string_view name_of(Detector detector) {
  switch (detector) {
    case Detector::kValue:
      return "value";
    case Detector::kLse:
      return "lse";
    case Detector::kGuard:
      return "guard";
    case Detector::kPoison:
      return "poison";
    case Detector::kRepeat:
      return "repeat";
    case Detector::kSecondCall:
      return "second call";
    case Detector::kScratch:
      return "scratch";
    case Detector::kGraphReplay:
      return "graph replay";
    case Detector::kRefusal:
      return "refusal";
    case Detector::kGraph:
      return "graph";
    case Detector::kPadding:
      return "padding";
  }
  return "";
}

std::span<const FaultInfo> fault_catalogue() {
  static const std::vector<FaultInfo> catalogue = all_parts();
  return catalogue;
}

const FaultInfo& find_fault(std::string_view id) {
  const auto catalogue = fault_catalogue();
  const auto found = std::ranges::find(catalogue, id, &FaultInfo::id);
  if (found != catalogue.end()) return *found;
  std::vector<std::string> ids;
  for (const FaultInfo& fault : catalogue) ids.emplace_back(fault.id);
  const std::string nearest = nearest_match(id, ids);
  throw Error(ErrorKind::kUsage,
              "there is no fault \"" + std::string(id) + "\"" +
                  (nearest.empty() ? "; attn-compare list faults names them"
                                   : "; did you mean \"" + nearest + "\"?"),
              "fault");
}

}  // namespace attn::harness
