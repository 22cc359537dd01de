#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "harness/backends/backend.h"
#include "reference/core/case.h"
#include "reference/core/trace.h"

namespace attn::harness {

/// Context of the Error that ends a run: a bug broke the device, and nothing can be told after it.
inline constexpr const char* kDeviceLost = "device lost";

/// What libattn_faulty.so and libattn_faulty_cuda.so offer, under the one symbol that they export:
/// attn_faulty_entry.
struct FaultyEntry {
  /// Of the types that cross the border: a library of another build is told apart.
  static constexpr std::size_t kLayout[] = {sizeof(AttentionConfig), sizeof(Case),
                                            sizeof(KvCache),         sizeof(Trace),
                                            sizeof(Arithmetic),      kNumStages};

  std::span<const std::size_t> layout;
  /// Ids of every switch in the library, in no particular order.
  std::span<const std::string_view> (*ids)();
  /// Null for an unknown id.
  std::unique_ptr<Backend> (*make)(std::string_view id, std::int64_t block);
  /// Since the library was loaded, on all threads.
  std::int64_t (*reached)(std::string_view id);
  /// By the last run on the calling thread.
  std::int64_t (*reached_by_last_run)();
};

}  // namespace attn::harness
