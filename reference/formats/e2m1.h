#pragma once

#include "reference/stages/matrix.h"

namespace attn::reference {

/// Values of e2m1 codes stored two a byte, the even column in the low nibble: bytes [out, in/2] to
/// [out, in].
Matrix decode_e2m1(const Tensor& bytes);

}  // namespace attn::reference
