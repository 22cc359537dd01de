#pragma once

#include <cstdint>

namespace attn::gpu {

/// Element types that kernels read and write.
enum class Type : std::uint8_t { kFloat32, kBFloat16, kFloat16, kFloat8E4M3 };

constexpr int size_of(Type type) {
  return type == Type::kFloat32 ? 4 : type == Type::kFloat8E4M3 ? 1 : 2;
}

}  // namespace attn::gpu
