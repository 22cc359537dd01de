#pragma once

#include <cstddef>
#include <cstdint>

#include "gpu/device/device.h"
#include "gpu/kernels/types.h"

namespace attn::gpu {

/// Clamps data[0 .. count) to [-bound, bound], the bound first rounded to `type`. In place.
void clip(void* data, Type type, std::int64_t count, float bound, StreamHandle stream);

/// to[i] = from[i] for i < count, rounded to nearest even where `to_type` is narrower.
void convert(const void* from, Type from_type, void* to, Type to_type, std::int64_t count,
             StreamHandle stream);

/// The same bytes elsewhere on the device.
void copy_on_device(const void* from, void* to, std::size_t bytes, StreamHandle stream);

}  // namespace attn::gpu
