#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

namespace attn::golden {

/// Sends bytes to the parent.
using Send = std::function<void(const void* data, std::size_t bytes)>;

struct IsolationLimits {
  unsigned cpu_seconds = 0;
  std::uint64_t memory_bytes = 0;  ///< on top of what the process has when it starts
};

inline constexpr char kRanTooLong[] = "ran for too long";

/// A child process that runs `work` under limits, its output read here as it comes. For code that
/// cannot be trusted with its input: whatever happens inside, the caller only sees the stream end.
class IsolatedProcess {
 public:
  /// Throws Error(kInternal) when no process can be started.
  IsolatedProcess(const IsolationLimits& limits, const std::function<void(const Send&)>& work);
  ~IsolatedProcess();
  IsolatedProcess(const IsolatedProcess&) = delete;
  IsolatedProcess& operator=(const IsolatedProcess&) = delete;

  /// Fills `data`; false when the stream ends before.
  bool receive(void* data, std::size_t bytes);
  /// Why the stream ended: "crashed with signal 11 (Segmentation fault)", kRanTooLong, or "" after
  /// a normal end. Ends the process.
  std::string cause_of_death();

 private:
  pid_t pid_ = -1;
  int output_ = -1;
};

}  // namespace attn::golden
