#include <array>

#include "harness/faults/catalogue_internal.h"

namespace attn::harness {
namespace {

constexpr std::array kFaults = {
    FaultInfo{"mask_top_left", "causal mask anchored at the first key, not the last", Stage::kLse,
              "more keys than rows", Detector::kValue, 1,
              "https://github.com/Dao-AILab/flash-attention/issues/282", ""},
    FaultInfo{"mask_align_ignored", "top-left mask anchored at the last key", Stage::kLse,
              "align top_left, rows and keys differ", Detector::kValue, 1,
              "https://github.com/Dao-AILab/flash-attention/pull/436", ""},
    FaultInfo{"negative_position_is_zero", "rows before the first key see it", Stage::kLse,
              "more rows than keys, causal", Detector::kValue, 2,
              "https://github.com/Dao-AILab/flash-attention/issues/1778", ""},
    FaultInfo{"window_one_too_wide", "window of one key more", Stage::kLse,
              "window shorter than the row", Detector::kValue, 3,
              "https://github.com/huggingface/transformers/issues/39408", ""},
    FaultInfo{"window_one_too_narrow", "window of one key less", Stage::kLse,
              "window shorter than the row", Detector::kValue, 3,
              "https://github.com/zml/zml/pull/763", ""},
    FaultInfo{"kv_head_modulo", "query head mapped to kv head by modulo", Stage::kLse,
              "group size and kv heads above 1", Detector::kValue, 6,
              "https://github.com/ekzhang/jax-js/pull/180", ""},
    FaultInfo{"packed_gqa_mask_row", "mask row not divided by the group size", Stage::kLse,
              "group size above 1, several rows", Detector::kValue, 7,
              "https://github.com/Dao-AILab/flash-attention/pull/2528", ""},
    FaultInfo{"group_tile_of_16", "heads of a group after the 16th computed as the 16th",
              Stage::kLse, "group size 24", Detector::kValue, 8,
              "https://github.com/flashinfer-ai/flashinfer/issues/996", ""},
    FaultInfo{"group_masked_by_power_of_two", "head in a group taken by a bit mask", Stage::kLse,
              "group size no power of two", Detector::kValue, 8,
              "https://github.com/mlc-ai/mlc-llm/pull/2543", ""},
    FaultInfo{"last_page_of_one_key", "last page dropped where it holds one key", Stage::kLse,
              "page size 16 or more, one key in the last page", Detector::kValue, 19,
              "https://github.com/flashinfer-ai/flashinfer/issues/941", ""},
    FaultInfo{"sink_dropped", "sink left out", Stage::kLse, "sinks", Detector::kValue, 32,
              "https://github.com/ROCm/rocm-libraries/issues/12227", ""},
    FaultInfo{"sink_per_block", "sink counted once for each block of keys", Stage::kLse,
              "sinks, several blocks of keys", Detector::kValue, 32,
              "https://github.com/modular/modular/issues/6198", ""},
    FaultInfo{"sink_of_kv_head", "sink read by kv head", Stage::kLse, "sinks, group size above 1",
              Detector::kValue, 32, "", ""},
    FaultInfo{"finite_sentinel", "running maximum starts at -5000", Stage::kLse,
              "rows whose logits are all below -5000", Detector::kValue, 33,
              "https://github.com/flashinfer-ai/flashinfer/issues/4267", ""},
    FaultInfo{"rescale_is_one", "sums of earlier blocks not rescaled to the new maximum",
              Stage::kLse, "a later block with a larger maximum", Detector::kValue, 34,
              "https://github.com/paiml/aprender/issues/2753", ""},
    FaultInfo{"scale_of_padded_head_dim", "scale made of the head width padded to the vector width",
              Stage::kLse, "head_dim no multiple of 8, no scale", Detector::kValue, 16, "", ""},
    FaultInfo{"lse_base_2", "lse in base 2", Stage::kLse, "any", Detector::kLse, 31,
              "https://github.com/sgl-project/sglang/issues/40903", ""},
};

}  // namespace

std::span<const FaultInfo> attention_faults() { return kFaults; }

}  // namespace attn::harness
