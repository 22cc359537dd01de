#include "harness/faults/memory_faults.h"

#include <array>

namespace attn::harness {
namespace {

constexpr std::array kFaults = {
    FaultInfo{"dense_offset_32_bit", "offsets of q and attn_out in 32 bits", Stage::kLse,
              "rows more than 2^31 elements apart", Detector::kGuard, 12,
              "https://github.com/Dao-AILab/flash-attention/pull/2260", ""},
    FaultInfo{"pool_offset_32_bit", "offsets into the pools in 32 bits", Stage::kLse,
              "live pages at the top of a pool of more than 2^31 elements", Detector::kGuard, 13,
              "https://github.com/vllm-project/vllm/issues/50427", ""},
    FaultInfo{"broadcast_tail_of_one", "last key of a tile of one read from its neighbour",
              Stage::kLse, "kv heads with stride 0, keys % 32 = 1", Detector::kValue, 14,
              "https://github.com/pytorch/pytorch/issues/191937", ""},
    FaultInfo{"combine_one_stride", "rows of attn_out taken to follow each other after a split",
              Stage::kAttnOut, "attn_out with a row stride of its own, 16 keys or more",
              Detector::kGuard, 15, "https://github.com/flagos-ai/FlagGems/issues/5235", ""},
    FaultInfo{"out_strides_swapped", "attn_out stored with tokens outermost", Stage::kAttnOut,
              "attn_out with heads outermost", Detector::kValue, 18,
              "https://github.com/Dao-AILab/flash-attention/pull/2553", ""},
    FaultInfo{"tail_slots_read", "unused slots of the last page multiplied by 0", Stage::kAttnOut,
              "keys that do not fill their last page", Detector::kPoison, 19,
              "https://github.com/flashinfer-ai/flashinfer/issues/941", ""},
    FaultInfo{"page_prefetch_past_row", "page after the last one of a row of the table fetched",
              Stage::kLse, "a sequence that fills its row of the page table", Detector::kGuard, 24,
              "https://github.com/vllm-project/vllm/issues/53982", ""},
    FaultInfo{"hnd_as_nhd", "slots and heads of a page exchanged", Stage::kLse,
              "cache pages of [heads, slots, dim]", Detector::kValue, 0, "", ""},
    FaultInfo{"interleaved_offset_dropped", "k read where v lies", Stage::kAttnOut,
              "k and v in one allocation", Detector::kValue, 0, "", ""},
    FaultInfo{"v_strides_of_k", "strides of k used for v", Stage::kAttnOut,
              "head_dim_v that is not head_dim, pools apart", Detector::kValue, 17,
              "https://github.com/Dao-AILab/flash-attention/pull/2368", ""},
    FaultInfo{"page_stride_of_one_layer", "pages taken to follow each other without other layers",
              Stage::kLse, "a pool of several layers", Detector::kPoison, 0, "", ""},
    FaultInfo{"byte_offset_ignored", "byte offset of tensors ignored", Stage::kLse,
              "a layer that is not the first, or tensors that begin behind their pointer",
              Detector::kPoison, 0, "", ""},
    FaultInfo{"fused_qkv_as_dense", "rows of q taken to follow each other", Stage::kLse,
              "q as a part of rows with k and v", Detector::kPoison, 0, "", ""},
    FaultInfo{"transposed_as_dense", "q read with tokens outermost", Stage::kLse,
              "q with heads outermost", Detector::kValue, 0, "", ""},
    FaultInfo{"channel_stride_one", "channels taken to lie next to each other", Stage::kLse,
              "channels with a stride", Detector::kPoison, 0, "", ""},
    FaultInfo{"page_table_dense", "rows of the page table taken to follow each other", Stage::kLse,
              "a page table with gaps, two sequences", Detector::kGuard, 0, "", ""},
    FaultInfo{"mask_dense", "rows of the mask taken to follow each other", Stage::kLse,
              "a mask with gaps or with stride 0", Detector::kPoison, 0, "", ""},
    FaultInfo{"scale_dense", "scales of the cache taken to be dense", Stage::kLse,
              "scales for each token and head in pages of [heads, slots], or with gaps",
              Detector::kValue, 0, "", ""},
    FaultInfo{"lse_dense", "rows of lse taken to follow each other", Stage::kLse,
              "lse with heads outermost or with gaps", Detector::kValue, 0, "", ""},
    FaultInfo{"out_rows_of_eight", "rows of attn_out filled to a multiple of 8", Stage::kAttnOut,
              "head_dim_v that is no multiple of 8", Detector::kGuard, 16,
              "https://github.com/Dao-AILab/flash-attention/pull/2698", ""},
    FaultInfo{"q_rows_of_eight", "rows of q read to a multiple of 8", Stage::kLse,
              "head_dim that is no multiple of 8", Detector::kGuard, 16,
              "https://github.com/Dao-AILab/flash-attention/pull/2896", ""},
    FaultInfo{"workspace_past_end", "one byte more of the workspace used", Stage::kLse, "any call",
              Detector::kGuard, 0, "", ""},
    FaultInfo{"q_scaled_in_place", "q changed and put back", Stage::kLse, "any call",
              Detector::kGuard, 0, "", ""},
    FaultInfo{"offsets_past_end", "one row offset too many read", Stage::kLse, "any call",
              Detector::kGuard, 0, "", ""},
};

}  // namespace

std::span<const FaultInfo> memory_faults() { return kFaults; }

}  // namespace attn::harness
