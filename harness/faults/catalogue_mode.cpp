#include <array>

#include "harness/faults/catalogue_internal.h"

namespace attn::harness {
namespace {

constexpr std::array kFaults = {
    FaultInfo{"plan_lengths_kept", "key counts of the first call kept", Stage::kLse,
              "a call after one with other lengths", Detector::kSecondCall, 26,
              "https://github.com/NVIDIA/TensorRT-LLM/pull/18769", ""},
    FaultInfo{"plan_pages_kept", "page table of the first call kept", Stage::kCacheK,
              "a call after one with another page table", Detector::kSecondCall, 23,
              "https://github.com/gittensor-ai-lab/sparkinfer/pull/185", ""},
    FaultInfo{"sinks_kept", "sinks of the first call kept", Stage::kLse,
              "a call after one with other sinks", Detector::kSecondCall, 26,
              "https://github.com/NVIDIA/TensorRT-LLM/pull/18443", ""},
};

}  // namespace

std::span<const FaultInfo> mode_faults() { return kFaults; }

}  // namespace attn::harness
