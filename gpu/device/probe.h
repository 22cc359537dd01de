#pragma once

namespace attn::gpu {

/// The runtime's error code for "does this build hold machine code for the current device", 0 when
/// it does. A query: nothing is launched.
int probe_kernel_image();

}  // namespace attn::gpu
