#include "harness/backends/padding.h"

#include <cmath>
#include <cstring>
#include <sstream>

namespace attn::harness {
namespace {

/// Value of element `i`, in memory order.
double value_at(ElementType type, std::span<const std::byte> bytes, std::size_t i) {
  std::uint64_t code = 0;
  std::memcpy(&code, bytes.data() + i * element_size(type), element_size(type));
  return decode(type, code);
}

bool holds(PaddingRows declared, ElementType type, std::span<const std::byte> result, std::size_t i,
           std::byte before) {
  switch (declared) {
    case PaddingRows::kZero:
      return value_at(type, result, i) == 0.0;
    case PaddingRows::kFinite:
      return std::isfinite(value_at(type, result, i));
    case PaddingRows::kUntouched:
      break;
  }
  for (std::size_t b = 0; b < element_size(type); ++b) {
    if (result[i * element_size(type) + b] != before) return false;
  }
  return true;
}

}  // namespace

std::string_view name_of(PaddingRows rows) {
  switch (rows) {
    case PaddingRows::kZero:
      return "zero";
    case PaddingRows::kUntouched:
      return "untouched";
    case PaddingRows::kFinite:
      return "finite";
  }
  return "";
}

std::string padding_mistake(PaddingRows declared, ElementType type, std::int64_t first,
                            std::int64_t width, std::span<const std::byte> result,
                            std::byte before) {
  const std::size_t elements = result.size() / element_size(type);
  for (std::size_t i = 0; i < elements; ++i) {
    if (holds(declared, type, result, i, before)) continue;
    const auto at = static_cast<std::int64_t>(i);
    std::ostringstream text;
    text << "padding row " << first + at / width << ", column " << at % width << " is "
         << value_at(type, result, i) << "; declared: " << name_of(declared);
    return text.str();
  }
  return "";
}

}  // namespace attn::harness
