#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "golden/import/tensor_file.h"

namespace attn::golden {

/// Fills its argument with the next bytes of an array file; throws when there are too few.
using ReadNext = std::function<void(std::span<std::byte>, const std::string& where)>;

/// Reads the header of a .npy stream of `total` bytes (numpy.lib.format, versions 1 to 3). The
/// entry's offset is the header's length. Throws Error(kInput) for anything malformed, arrays in
/// Fortran order, big-endian ones, structured types, and sizes that do not match `total`.
StoredTensor read_npy_header(const std::string& path, const std::string& name, std::uint64_t total,
                             const ReadNext& next);

}  // namespace attn::golden
