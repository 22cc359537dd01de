#pragma once

#include <cstddef>

#include "reference/core/devices.h"
#include "reference/core/tensor.h"

namespace attn::reference {

/// Items range of one axis of a stored tensor, bit for bit; the other axes whole.
Tensor take(const Tensor& stored, std::size_t axis, Range range);

/// Writes `part` over items first .. of one axis of `whole`. The other axes are equal, and so are
/// the element types.
void put(Tensor& whole, std::size_t axis, std::int64_t first, const Tensor& part);

}  // namespace attn::reference
