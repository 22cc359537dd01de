#pragma once

#include <cstddef>
#include <string>

namespace attn::gpu {

/// What a device without code in this build is told, and an allocation that does not fit: one line
/// with what was found and what to try.
std::string no_code_message(const std::string& device, int major, int minor,
                            const std::string& failure);
std::string out_of_memory_message(std::size_t wanted, std::size_t free, std::size_t total);

}  // namespace attn::gpu
