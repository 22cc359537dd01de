#pragma once

#include "gpu/device/device.h"

namespace attn::gpu {

/// For tests: fills what a kernel may find without having written it with NaN: the shared memory of
/// every multiprocessor, local memory, and some of what is free on the device, in blocks of several
/// sizes. What `stream` was given before is done first, what it is given later finds the NaN. The
/// device's allocator is asked, so it cannot be captured.
void dirty_scratch(const Stream& stream);

}  // namespace attn::gpu
