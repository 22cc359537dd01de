#pragma once

#include "harness/backends/cpu/attend.h"
#include "reference/core/case.h"
#include "reference/core/trace.h"

namespace attn::harness::cpu {

/// Runs the layer on config.num_devices devices, one after the other. tensor_parallel: each has the
/// rows of q, k and v and the columns of o_proj that belong to its heads, and a cache of its kv
/// heads; its parts of `out` are added in float32, in the order of the devices. data_parallel: each
/// has the sequences of its shard. A device without query heads or sequences does nothing. Stages
/// as run_device, put together; the cache is the whole pool.
Trace run_on_devices(const Case& c, const AttendOptions& options);

}  // namespace attn::harness::cpu
