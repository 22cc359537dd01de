#pragma once

#include <optional>

#include "reference/core/case.h"
#include "reference/reference.h"

namespace attn::reference {

/// The layer multiplies q, k and v as one projection with N = (Hq + 2 Hkv) D rows. These are the
/// merged tensors, under the names of the layer's properties. Their definitions of static float8
/// with one scale per tensor disagree:
///   kForward   what the product uses: weights requantised to the largest scale, which is a scalar
///   kProperty  what later versions of the layer answer: the stored weights one after the other,
///              and [N, 1] scales, each row with its own projection's
/// Both describe the same weights but for the rounding of the requantisation.
enum class QkvMerge { kForward, kProperty };

/// The merged weight as stored, rows Q, K, V; q, k, v clipped to clip_qkv as their type can hold
/// it. [N, in], [N, in/2] for e2m1 nibbles. GPTQ: [in*bits/8 + 2*groups, N] uint8, column n the
/// bytes of its codes, lowest input column first, and below them those of its float16 scales.
/// `mode` is that of the requantisation. Throws Error(kUnsupported) for GGUF, whose projections are
/// multiplied one by one, each in its own encoding.
Tensor wqkv(const Case& c, QkvMerge merge, Mode mode);

/// The merged bias [N]; nothing without biases. Throws Error(kUnsupported) for GGUF.
std::optional<Tensor> wqkv_bias(const Case& c);

/// The largest of the three static input scales; nothing when activations are quantised as they
/// come, or not at all.
std::optional<double> qkv_input_scale(const Case& c);

/// The merged weight scale: static float8 as said above; other float8 with a scale per tensor, or
/// per row: [N, 1]; blocks of float8, nvfp4, mxfp4, mxfp8: one below the other, [.., in / block].
/// Nothing for weights without scales of this name.
std::optional<Tensor> qkv_weight_scale(const Case& c, QkvMerge merge);

/// NVFP4: the largest of the three global scales; nothing for other encodings. A property only: the
/// products of q, k and v each use their own.
std::optional<double> qkv_weight_scale_2(const Case& c);

}  // namespace attn::reference
