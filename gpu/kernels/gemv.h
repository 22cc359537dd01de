#pragma once

#include <cstdint>
#include <string>

#include "gpu/device/device.h"
#include "gpu/kernels/gemm.h"
#include "gpu/kernels/head_pass.h"

namespace attn::gpu {

/// Rows of x that the products below take: those of one m16n8k16.
inline constexpr std::int64_t kMostGemvRows = 8;

/// "" when gemv() takes products of this type and depth (columns of x and w), else one line why
/// not.
std::string gemv_refusal(Type type, std::int64_t depth);

/// Which calls go to the kernel, of those that it takes.
enum class GemvUse : std::uint8_t {
  kNever,
  kFewRows,
  /// And what follows attention has its blocks, which start while attention ends, ask the L2 for
  /// all of their weights then: attention waits more than it reads.
  kAhead,
  kChosen,  ///< kAhead where attention reads little, else kFewRows
};
/// The most that attention may read of the cache for that to pay: measured on an H200, 2 us less
/// without a cache, 1 with 4 MB, 3 us more with 34 MB.
inline constexpr double kMostBytesBesideAhead = 8e6;

/// y = clip(x w^T + bias) as gemm() has it, of at most kMostGemvRows rows of x: w is read once, as
/// it lies, as fast as the memory gives it. x and w of 16 bits, 16-byte aligned. Its first part of
/// w is on its way before the kernel ahead of it in the stream has ended: nothing in the stream may
/// write there. Rows of y do not depend on m. `ahead`: GemvUse::kAhead.
void gemv(const GemmArguments& arguments, bool ahead, StreamHandle stream);

/// The same product of q, k and v, with all of `heads`' steps behind it (head_pass.h), of layers
/// that projection_refusal() has nothing against: the same roundings; sums are of another order.
/// `product`: y for the sums, or null: not kept. `heads` has no sources.
void gemv_heads(const GemmArguments& product, const HeadPassArguments& heads, StreamHandle stream);

}  // namespace attn::gpu
