#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "reference/core/element.h"

namespace attn::harness {

/// What a backend leaves in the rows of a result that no sequence of a padded batch owns.
enum class PaddingRows : std::uint8_t {
  kZero,       ///< zeros
  kUntouched,  ///< what was there before
  kFinite,     ///< any finite values
};
std::string_view name_of(PaddingRows rows);

/// "" when `result`, rows [first, ...) of a tensor of `type` with `width` columns, holds what is
/// declared, else one line: the first element that does not. Every byte was `before` when the
/// backend was called.
std::string padding_mistake(PaddingRows declared, ElementType type, std::int64_t first,
                            std::int64_t width, std::span<const std::byte> result,
                            std::byte before);

}  // namespace attn::harness
