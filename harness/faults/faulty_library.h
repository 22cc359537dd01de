#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "harness/backends/backend.h"

namespace attn::harness {

struct FaultyEntry;

/// libattn_faulty.so: the cpu backend's sources compiled with the switches of every planted bug. It
/// is loaded at run time, beside the program or where ATTN_FAULTY_LIBRARY says, and by nothing but
/// `faults`, the fault dictionary and the backend spec "faulty:ID".
class FaultyLibrary {
 public:
  /// The one instance of this process. Throws Error(kUsage) with the paths that were tried.
  static FaultyLibrary& instance();
  /// libattn_faulty_cuda.so: the same of the CUDA backend, whose bugs need a device to run.
  static FaultyLibrary& cuda();

  /// Keys per online-softmax step unless told otherwise: few, so that short cases have several.
  static constexpr std::int64_t kBlock = 16;

  /// The cpu backend, on one thread, with one fault switched on. `id` "none": the same build with
  /// every fault off. Instances with different faults may run at the same time, on several threads.
  /// What a fault keeps from one call to the next belongs to the instance. Throws Error(kUsage)
  /// with the nearest known id.
  std::unique_ptr<Backend> make(std::string_view id, std::int64_t block = kBlock) const;

  /// How often the switched line of a fault was executed where it makes a difference to what is
  /// computed, since the program began.
  std::int64_t reached(std::string_view id) const;
  /// The same for the last run on the calling thread, of any instance.
  std::int64_t reached_by_last_run() const;

  /// Ids of every switch that the library holds, in no particular order.
  std::span<const std::string_view> ids() const;

 private:
  FaultyLibrary(const char* variable, const char* file, const char* target);
  const FaultyEntry* entry_ = nullptr;
};

}  // namespace attn::harness
