#include "harness/faults/fault_items.h"

#include <algorithm>
#include <span>

#include "harness/faults/memory_faults.h"
#include "reference/core/error.h"

namespace attn::harness {
namespace {

bool holds(std::span<const FaultInfo> faults, const std::string& id) {
  return std::ranges::any_of(faults, [&](const FaultInfo& fault) { return fault.id == id; });
}

void append(std::vector<FaultItem>& items, std::span<const FaultInfo> faults,
            const std::vector<std::string>& only, FaultItem::Kind kind, FaultItem::Kind clean) {
  bool any = false;
  for (const FaultInfo& fault : faults) {
    if (!only.empty() && std::ranges::find(only, fault.id) == only.end()) continue;
    items.push_back({std::ssize(items), kind, &fault});
    any = true;
  }
  if (any) items.push_back({std::ssize(items), clean, nullptr});
}

}  // namespace

std::vector<FaultItem> fault_items(const std::vector<std::string>& only, bool memory) {
  for (const std::string& id : only) {
    if (!holds(memory_faults(), id)) {
      find_fault(id);  // for its message
    } else if (!memory) {
      throw Error(ErrorKind::kUsage,
                  "\"" + id +
                      "\" is a bug of memory, which is noticed or not by the whole comparison on "
                      "the gate's own cases: leave out --oracle and --without-profile",
                  "--only");
    }
  }
  using Kind = FaultItem::Kind;
  std::vector<FaultItem> items;
  append(items, fault_catalogue(), only, Kind::kValue, Kind::kValueClean);
  if (memory) append(items, memory_faults(), only, Kind::kMemory, Kind::kMemoryClean);
  return items;
}

}  // namespace attn::harness
