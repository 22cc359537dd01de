#include <array>

#include "harness/faults/catalogue_internal.h"

namespace attn::harness {
namespace {

constexpr std::array kFaults = {
    FaultInfo{"page_table_ignored", "page table ignored, cache read as contiguous", Stage::kCacheK,
              "shuffled pages", Detector::kGuard, 25, "https://github.com/tanishqkumar/ssd/pull/22",
              ""},
    FaultInfo{"page_size_doubled", "page found with twice the page size", Stage::kCacheK,
              "more than one page", Detector::kGuard, 21,
              "https://github.com/vllm-project/vllm/pull/27547", ""},
    FaultInfo{"page_step_of_wide_heads", "page index one late for wide heads", Stage::kCacheK,
              "head_dim 256, three sequences or more, second page", Detector::kGuard, 11,
              "https://github.com/NVIDIA/TensorRT-LLM/pull/18244", ""},
    FaultInfo{"page_id_in_7_bits", "page id kept in a signed byte", Stage::kCacheK,
              "pages from 128 on", Detector::kGuard, 13,
              "https://github.com/vllm-project/vllm/issues/50427", ""},
    FaultInfo{"large_page_slots_paired", "slots of large pages swapped in pairs", Stage::kCacheK,
              "page size 256", Detector::kGuard, 20,
              "https://github.com/flashinfer-ai/flashinfer/issues/4347", ""},
    FaultInfo{"odd_page_last_slot", "last slot of an odd page falls on the one before",
              Stage::kCacheK, "odd page size above 1", Detector::kValue, 20, "", ""},
    FaultInfo{"fresh_row_in_mixed_batch", "new sequence reads the pages of the first one",
              Stage::kLse, "a sequence without cached tokens after one with", Detector::kValue, 22,
              "https://github.com/vllm-project/vllm/pull/7018", ""},
    FaultInfo{"layer_zero", "layer 0 of the pool used for every layer", Stage::kCacheK,
              "a layer after the first", Detector::kGuard, 0, "", ""},
    FaultInfo{"stored_in_next_layer_too", "new tokens written to the next layer as well",
              Stage::kCacheK, "a layer before the last", Detector::kGuard, 0, "", ""},
    FaultInfo{"last_row_not_stored", "last new token not stored", Stage::kCacheK,
              "cached tokens, two new ones or more", Detector::kPoison, 0, "", ""},
    FaultInfo{"keys_stored_before_rope", "keys stored before rope", Stage::kCacheK, "any",
              Detector::kValue, 38, "", ""},
    FaultInfo{"last_page_tail_read", "unused slots of the last page multiplied by 0",
              Stage::kAttnOut, "key count no multiple of the page size", Detector::kPoison, 19,
              "https://github.com/flashinfer-ai/flashinfer/issues/941", ""},
    FaultInfo{"last_page_tail_unmasked", "last page's tail not masked", Stage::kLse,
              "a row that sees the last key, key count no multiple of the page size",
              Detector::kPoison, 19, "https://github.com/flashinfer-ai/flashinfer/issues/941", ""},
    FaultInfo{"key_scale_dropped", "scale of cached keys dropped", Stage::kCacheK,
              "fp8 cache with scales", Detector::kValue, 39,
              "https://github.com/vllm-project/vllm/pull/42580", ""},
    FaultInfo{"value_scale_dropped", "scale of cached values dropped", Stage::kCacheV,
              "fp8 cache with scales", Detector::kValue, 39,
              "https://github.com/vllm-project/vllm/pull/51363", ""},
    FaultInfo{"value_scale_of_keys", "values scaled with the scale of the keys", Stage::kCacheV,
              "fp8 cache with scales", Detector::kValue, 39,
              "https://github.com/sgl-project/sglang/pull/20705", ""},
    FaultInfo{"cache_scale_of_head_0", "cache scale of head 0 for every head", Stage::kCacheK,
              "fp8 cache with scales for each head", Detector::kValue, 39,
              "https://github.com/NVIDIA/TensorRT-LLM/issues/1169", ""},
    FaultInfo{"cache_scale_for_240", "dynamic cache scale made for 240", Stage::kCacheK,
              "fp8 cache, scales for each token and head", Detector::kValue, 39, "", ""},
};

}  // namespace

std::span<const FaultInfo> cache_faults() { return kFaults; }

}  // namespace attn::harness
