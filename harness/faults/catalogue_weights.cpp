#include <array>

#include "harness/faults/catalogue_internal.h"

namespace attn::harness {
namespace {

constexpr std::array kFaults = {
    FaultInfo{"fp8_truncated", "fp8 codes truncated", Stage::kQProj, "fp8 activations or cache",
              Detector::kValue, 39, "", ""},
    FaultInfo{"fp8_overflow_is_nan", "values past the largest fp8 code become NaN", Stage::kCacheK,
              "fp8 with values past the largest code", Detector::kPoison, 39, "", ""},
    FaultInfo{"fp8_subnormals_flushed", "fp8 subnormals flushed to 0", Stage::kQProj,
              "fp8 or fp4 with small values", Detector::kValue, 39, "", ""},
    FaultInfo{"fp8_scale_of_first_rows", "fp8 weight scale of the first rows for all",
              Stage::kQProj, "fp8 weights, scales by row or block", Detector::kValue, 40, "", ""},
    FaultInfo{"fp8_tail_block_scale", "narrow last block of fp8 weights takes the scale before",
              Stage::kQProj, "fp8 weights, width no multiple of the block", Detector::kValue, 40,
              "", ""},
    FaultInfo{"fp8_scale_not_capped", "dynamic fp8 scale not capped", Stage::kQProj,
              "fp8 activations above 1200", Detector::kValue, 39, "", ""},
    FaultInfo{"fp8_scale_of_last_row", "dynamic fp8 scale of the last row for all", Stage::kQProj,
              "fp8 activations by token, several rows", Detector::kValue, 39, "", ""},
    FaultInfo{"input_scale_of_own", "activation scale of each projection, not the largest",
              Stage::kQProj, "static activation scales", Detector::kValue, 39, "", ""},
    FaultInfo{"merged_codes_not_requantised", "codes of merged fp8 weights not requantised",
              Stage::kQProj, "fp8 weights with static activations", Detector::kValue, 40, "", ""},
    FaultInfo{"merged_scale_of_k", "scale of k for the merged q, k and v", Stage::kQProj,
              "fp8 weights with static activations, or nvfp4", Detector::kValue, 40, "", ""},
    FaultInfo{"fp4_nibbles_swapped", "fp4 nibbles swapped", Stage::kQProj, "nvfp4 or mxfp4",
              Detector::kValue, 40, "", ""},
    FaultInfo{"fp4_scale_of_previous_block", "every fourth fp4 block takes the scale before",
              Stage::kQProj, "nvfp4 or mxfp4", Detector::kValue, 40, "", ""},
    FaultInfo{"nvfp4_second_scale_dropped", "second scale of nvfp4 weights dropped", Stage::kQProj,
              "nvfp4", Detector::kValue, 40, "", ""},
    FaultInfo{"nvfp4_second_scale_of_k", "second scale of k used for v", Stage::kVProj, "nvfp4",
              Detector::kValue, 40, "", ""},
    FaultInfo{"nvfp4_scale_not_rounded", "block scale of nvfp4 activations not rounded to e4m3",
              Stage::kQProj, "nvfp4 activations", Detector::kValue, 39, "", ""},
    FaultInfo{"mx_scale_rounded_down", "power of two of mx activations rounded down", Stage::kQProj,
              "mxfp4 or mxfp8 activations", Detector::kValue, 39, "", ""},
    FaultInfo{"int8_truncated", "int8 activations truncated", Stage::kQProj, "int8 activations",
              Detector::kValue, 39, "", ""},
    FaultInfo{"gptq_zero_one_less", "zero point of GPTQ one less", Stage::kQProj, "gptq",
              Detector::kValue, 40, "https://github.com/ModelCloud/GPTQModel/issues/2350", ""},
    FaultInfo{"gptq_zero_of_4_bits", "zero point of 4 bits for 8", Stage::kQProj,
              "gptq with 8 bits", Detector::kValue, 40,
              "https://github.com/vllm-project/vllm/pull/38966", ""},
    FaultInfo{"gptq_group_order_ignored", "GPTQ groups taken in order", Stage::kQProj,
              "gptq with desc_act", Detector::kValue, 40, "", ""},
    FaultInfo{"q4_0_halves_swapped", "halves of a Q4_0 block swapped", Stage::kQProj, "q4_0",
              Detector::kValue, 40, "", ""},
    FaultInfo{"q8_0_lowest_code", "lowest Q8_0 code one too high", Stage::kQProj, "q8_0",
              Detector::kValue, 40, "", ""},
    FaultInfo{"k_quant_top_bits_swapped", "top bits of scales and minima swapped in upper groups",
              Stage::kQProj, "q4_k or q5_k", Detector::kValue, 40, "", ""},
    FaultInfo{"k_quant_top_bits_dropped", "top bits of scales and minima dropped in upper groups",
              Stage::kQProj, "q4_k or q5_k", Detector::kValue, 40, "", ""},
    FaultInfo{"k_quant_minimum_kept", "minimum of 0 leaves that of the group before", Stage::kQProj,
              "q4_k or q5_k, a group without negative weights", Detector::kValue, 40, "", ""},
    FaultInfo{"zero_block_kept", "block of zeros skipped, the one before left in its place",
              Stage::kQProj, "q4_0 or q8_0, a block of zeros", Detector::kValue, 40, "", ""},
    FaultInfo{"q4_k_minimum_added", "Q4_K minimum of odd groups added", Stage::kQProj, "q4_k",
              Detector::kValue, 40, "", ""},
    FaultInfo{"q5_k_high_bit_order", "fifth bits of Q5_K in the wrong order", Stage::kQProj, "q5_k",
              Detector::kValue, 40, "https://github.com/paiml/aprender/issues/3111", ""},
    FaultInfo{"q6_k_scale_of_32", "Q6_K scale taken for 32 columns", Stage::kQProj, "q6_k",
              Detector::kValue, 40, "", ""},
    FaultInfo{"q6_k_top_bits_signed", "top bits of Q6_K taken as signed", Stage::kQProj, "q6_k",
              Detector::kValue, 40, "", ""},
};

}  // namespace

std::span<const FaultInfo> weight_faults() { return kFaults; }

}  // namespace attn::harness
