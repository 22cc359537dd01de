// Planted bugs of the CUDA path, by their ids in harness/faults, which says what each is. Only
// libattn_faulty_cuda.so has switches for them.
#pragma once

#define ATTN_GPU_FAULTS(X)         \
  /* masks and positions */        \
  X(mask_top_left)                 \
  X(mask_align_ignored)            \
  X(negative_position_is_zero)     \
  X(causal_one_late)               \
  X(causal_without_diagonal)       \
  X(window_one_too_wide)           \
  X(window_one_too_narrow)         \
  X(window_of_almost_all_ignored)  \
  X(noncausal_window_two_sided)    \
  X(chunk_starts_one_early)        \
  X(chunk_of_two)                  \
  X(mask_row_of_sequence)          \
  X(mask_stride_of_sequence)       \
  /* heads and channels */         \
  X(kv_head_modulo)                \
  X(kv_head_wrong_divisor)         \
  X(head_dim_tail_ignored)         \
  X(output_heads_innermost)        \
  X(output_stride_of_keys)         \
  /* scores and softmax */         \
  X(scale_ignored)                 \
  X(scale_magnitude)               \
  X(scale_of_padded_head_dim)      \
  X(softcap_ignored)               \
  X(softcap_before_scale)          \
  X(softcap_after_mask)            \
  X(finite_sentinel)               \
  X(maximum_not_subtracted)        \
  X(maximum_of_first_block)        \
  X(rescale_is_one)                \
  X(rescale_in_base_2)             \
  X(denominator_not_rescaled)      \
  X(normalised_each_block)         \
  X(probabilities_in_half)         \
  X(masked_block_first)            \
  X(empty_split_merged)            \
  X(sink_dropped)                  \
  X(sink_of_kv_head)               \
  X(sink_scaled)                   \
  X(sink_per_block)                \
  X(lse_base_2)                    \
  X(lse_without_sink)              \
  X(lse_head_major)                \
  X(empty_row_unwritten)           \
  X(empty_row_divided)             \
  /* pages, slots, scales */       \
  X(page_table_ignored)            \
  X(page_size_doubled)             \
  X(page_id_in_7_bits)             \
  X(large_page_slots_paired)       \
  X(odd_page_last_slot)            \
  X(layer_zero)                    \
  X(last_row_not_stored)           \
  X(keys_stored_before_rope)       \
  X(key_scale_dropped)             \
  X(value_scale_dropped)           \
  X(value_scale_of_keys)           \
  X(cache_scale_of_head_0)         \
  X(cache_scale_for_240)           \
  X(fp8_truncated)                 \
  X(fp8_overflow_is_nan)           \
  X(fp8_subnormals_flushed)        \
  /* projections, norm, rope */    \
  X(bias_of_q_only)                \
  X(clip_qkv_ignored)              \
  X(clip_activations_before_bias)  \
  X(stacked_k_and_v_swapped)       \
  X(norm_eps_ignored)              \
  X(norm_eps_outside_root)         \
  X(norm_weight_plus_one)          \
  X(norm_weight_ignored)           \
  X(norm_weight_of_q)              \
  X(norm_result_unused)            \
  X(rope_interleave_swapped)       \
  X(rope_side_ignored)             \
  X(rope_still_channels_cleared)   \
  X(rope_turns_backward)           \
  X(rope_offset_reset)             \
  X(rope_offset_of_first)          \
  X(rope_offset_after_empty_row)   \
  X(rope_position_in_bfloat16)     \
  /* weights and their inputs */   \
  X(fp8_scale_not_capped)          \
  X(fp8_scale_of_last_row)         \
  X(merged_codes_not_requantised)  \
  X(nvfp4_scale_not_rounded)       \
  X(mx_scale_rounded_down)         \
  X(int8_truncated)                \
  X(fp4_nibbles_swapped)           \
  X(nvfp4_second_scale_dropped)    \
  X(gptq_zero_one_less)            \
  X(gptq_zero_of_4_bits)           \
  X(gptq_group_order_ignored)      \
  X(k_quant_top_bits_dropped)      \
  X(k_quant_top_bits_swapped)      \
  X(q6_k_scale_of_32)              \
  /* in one way of running only */ \
  X(plan_lengths_kept)             \
  X(graph_rows_kept)               \
  X(plan_pages_kept)               \
  X(cache_scale_kept)              \
  X(sum_order_by_call)             \
  X(scratch_accumulator)           \
  X(scratch_hidden_tail)           \
  X(counters_not_reset)            \
  X(split_combined_early)          \
  X(dependent_launch_not_waited)   \
  X(launch_on_another_stream)      \
  X(allocation_in_run)             \
  X(wait_in_run)                   \
  X(padding_rows_stored)           \
  X(padding_rows_not_cleared)      \
  X(padding_rows_attended)
