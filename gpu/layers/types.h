#pragma once

#include "gpu/kernels/types.h"
#include "reference/core/element.h"
#include "reference/core/error.h"

namespace attn::gpu {

/// The kernels' name of a stored type. Throws Error(kUnsupported) for one that they do not read.
inline Type type_of(ElementType type) {
  switch (type) {
    case ElementType::kFloat32:
      return Type::kFloat32;
    case ElementType::kBFloat16:
      return Type::kBFloat16;
    case ElementType::kFloat16:
      return Type::kFloat16;
    case ElementType::kFloat8E4M3FN:
      return Type::kFloat8E4M3;
    default:
      throw Error(ErrorKind::kUnsupported,
                  "cuda: " + std::string(element_name(type)) + " has no kernels");
  }
}

inline float round_to_type(double value, ElementType type) {
  return static_cast<float>(round_to(type, value));
}

}  // namespace attn::gpu
