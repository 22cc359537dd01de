#include <array>

#include "harness/faults/catalogue_internal.h"

namespace attn::harness {
namespace {

constexpr std::array kFaults = {
    FaultInfo{"page_table_ignored", "page table ignored, cache read as contiguous", Stage::kCacheK,
              "shuffled pages", Detector::kGuard, 25, "https://github.com/tanishqkumar/ssd/pull/22",
              ""},
    FaultInfo{"layer_zero", "layer 0 of the pool used for every layer", Stage::kCacheK,
              "a layer after the first", Detector::kGuard, 0, "", ""},
};

}  // namespace

std::span<const FaultInfo> cache_faults() { return kFaults; }

}  // namespace attn::harness
