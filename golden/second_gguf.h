#pragma once

#include "golden/second_matrix.h"
#include "reference/core/config.h"

namespace attn::golden {

/// Columns that one block of a GGUF encoding holds, and its bytes. {0, 0} for other encodings.
struct BlockSize {
  std::int64_t columns = 0;
  std::int64_t bytes = 0;
};
BlockSize second_block_size(QuantEncoding encoding);

/// A stored weight [out, bytes per row] of a GGUF encoding as numbers, [out, in].
Matrix second_gguf(const Tensor& stored, QuantEncoding encoding);

}  // namespace attn::golden
