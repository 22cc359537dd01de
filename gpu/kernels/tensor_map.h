#pragma once

#include <cuda.h>

#include <array>
#include <cstdint>

#include "gpu/kernels/types.h"

namespace attn::gpu {

/// A tensor in global memory and the box that one copy moves, innermost axis first.
template <int kRank>
struct TensorMapShape {
  const void* base = nullptr;   ///< 16-byte aligned
  Type type = Type::kBFloat16;  ///< of 16 bits, or a byte of codes
  std::array<std::uint64_t, kRank> sizes{};
  std::array<std::uint64_t, kRank - 1> strides{};  ///< bytes, of axis 1 on; multiples of 16
  std::array<std::uint32_t, kRank> box{};
};

/// The map that the copy engine takes: 128-byte swizzle, zeros outside the tensor. Host work of
/// about a microsecond: no memory is allocated or touched, and a stream may be capturing. The
/// driver's function is looked up through the runtime, once. Throws Error(kInternal) with what the
/// driver refused.
CUtensorMap make_tensor_map(const TensorMapShape<3>& shape);
CUtensorMap make_tensor_map(const TensorMapShape<4>& shape);

}  // namespace attn::gpu
