#include <array>

#include "harness/faults/catalogue_internal.h"

namespace attn::harness {
namespace {

constexpr std::array kFaults = {
    FaultInfo{"rope_interleave_swapped", "channel pairs of the other rope style", Stage::kQRope,
              "more than one pair", Detector::kValue, 38,
              "https://github.com/pie-project/pie/pull/603", ""},
};

}  // namespace

std::span<const FaultInfo> layer_faults() { return kFaults; }

}  // namespace attn::harness
