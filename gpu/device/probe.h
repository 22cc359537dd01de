#pragma once

namespace attn::gpu {

/// The runtime's error code for "does this build hold machine code for the current device", 0 when
/// it does. A query: nothing is launched.
int probe_kernel_image();

/// True when the current device runs this build's kernels as they were compiled for compute
/// capability 9.0 or later, not as code of 8.0 that the driver translated: that lacks what the
/// sources do for 9.0 (waiting for the grid before, clusters).
bool probe_hopper_code();

}  // namespace attn::gpu
