#include <array>

#include "harness/faults/catalogue_internal.h"

namespace attn::harness {
namespace {

constexpr std::array kFaults = {
    FaultInfo{"plan_lengths_kept", "key counts of the first call kept", Stage::kLse,
              "a call after one with fewer keys", Detector::kSecondCall, 26,
              "https://github.com/NVIDIA/TensorRT-LLM/pull/18769", ""},
    FaultInfo{"plan_pages_kept", "page table of the first call kept", Stage::kCacheK,
              "a call after one with another page table", Detector::kSecondCall, 23,
              "https://github.com/gittensor-ai-lab/sparkinfer/pull/185", ""},
    FaultInfo{"graph_rows_kept", "row counts of the first call kept", Stage::kLse,
              "a call after one with fewer rows", Detector::kSecondCall, 26,
              "https://github.com/NVIDIA/TensorRT-LLM/pull/18443", ""},
    FaultInfo{"rope_offset_kept", "rope offsets of the first call kept", Stage::kQRope,
              "a call after one with fewer cached tokens", Detector::kSecondCall, 38,
              "https://github.com/lucidrains/rotary-embedding-torch/issues/11", ""},
    FaultInfo{"sinks_kept", "sinks of the first call kept", Stage::kLse,
              "a call after one with other sinks", Detector::kSecondCall, 26,
              "https://github.com/NVIDIA/TensorRT-LLM/pull/18443", ""},
    FaultInfo{"scale_kept", "softmax scale of the first call kept", Stage::kLse,
              "a call after one with another scale", Detector::kSecondCall, 26, "", ""},
    FaultInfo{"cache_scale_kept", "cache scales of the first call kept", Stage::kCacheK,
              "a call after one with other fp8 cache scales", Detector::kSecondCall, 39, "", ""},
    FaultInfo{"sum_order_by_call", "order of a sum changes from call to call", Stage::kLse,
              "visible keys in several vectors of 4", Detector::kRepeat, 28,
              "https://github.com/Dao-AILab/flash-attention/issues/1217", ""},
    FaultInfo{"scratch_head_tail", "channels past the head width not cleared", Stage::kLse,
              "head_dim no multiple of 8, scratch that holds NaN", Detector::kScratch, 27,
              "https://github.com/flashinfer-ai/flashinfer/issues/1046", ""},
    FaultInfo{"scratch_accumulator", "output accumulator not cleared, times 0", Stage::kAttnOut,
              "scratch that holds NaN", Detector::kScratch, 27,
              "https://github.com/flashinfer-ai/flashinfer/issues/1046", ""},
    FaultInfo{"scratch_hidden_tail", "columns past the hidden size not cleared", Stage::kKProj,
              "hidden_size no multiple of 8, scratch that holds NaN", Detector::kScratch, 27,
              "https://github.com/flashinfer-ai/flashinfer/issues/1046", ""},
};

}  // namespace

std::span<const FaultInfo> mode_faults() { return kFaults; }

}  // namespace attn::harness
