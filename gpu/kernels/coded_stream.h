#pragma once

#include <string>
#include <string_view>

#include "gpu/kernels/coded_gemm.h"
#include "gpu/kernels/coded_stream_shape.h"

namespace attn::gpu {

/// "" when coded_stream() multiplies by `w`, else one line why not: gguf's weights, with the scales
/// that files have, and gptq's of 4 bits.
std::string stream_refusal(const CodedMatrix& w);

/// `m` rows of x, of `k` columns, with one scale for each `block` columns from the first on (0: x
/// is no codes). `shared_limit`: bytes of shared memory that a block may have. Not taken: more than
/// 16 rows (float32: 4), other scales, no room in shared memory, or a weight with a
/// refusal.
CodedStreamPlan plan_coded_stream(const CodedMatrix& w, std::int64_t m, std::int64_t k,
                                  std::int64_t block, int multiprocessors,
                                  std::size_t shared_limit);

/// Of an option's word: "stream" (all that can be streams), "few" (none); any other: those that
/// pay.
CodedStreams stream_use(std::string_view word);

/// Whether the product was measured faster so than by the other kernels. `block` as above.
bool stream_pays(const CodedMatrix& w, std::int64_t m, std::int64_t k, std::int64_t block);

/// Bytes of shared memory that a block may have on the current device.
std::size_t shared_memory_limit();

/// The product of a plan that is taken. a.x are the activations themselves, of any of the three
/// float types (gptq: the one that weights are rounded to); x_scale and x_sum are not read.
/// `image`: plan.image_bytes of workspace.
void coded_stream(const CodedGemmArguments& a, const CodedStreamPlan& plan, void* image,
                  StreamHandle stream);

/// Columns of x that share a scale with this weight, and columns of a sum (0: no sums).
StreamImage stream_image_of(const CodedMatrix& w, std::int64_t m, std::int64_t k);

}  // namespace attn::gpu
