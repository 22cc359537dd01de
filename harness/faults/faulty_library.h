#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "harness/backends/backend.h"

namespace attn::harness {

/// libattn_faulty.so: the cpu backend's sources compiled with the switches of every planted bug. It
/// is loaded at run time, beside the program or where ATTN_FAULTY_LIBRARY says, and by nothing but
/// `faults`, the fault dictionary and the backend spec "faulty:ID".
class FaultyLibrary {
 public:
  /// The one instance of this process. Throws Error(kUsage) with the paths that were tried.
  static FaultyLibrary& instance();

  /// The cpu backend with one fault switched on. `id` "none": the same build with every fault off.
  /// Several instances with different faults may run at the same time, on several threads.
  std::unique_ptr<Backend> make(std::string_view id) const;

  /// How often the switched line of a fault was executed where it makes a difference to what is
  /// computed, since the program began.
  std::int64_t reached(std::string_view id) const;

 private:
  FaultyLibrary();
  struct Entry;
  const Entry* entry_;
};

}  // namespace attn::harness
