// Compiled into libattn_faulty_cuda.so only: turns switches, and the state that some bugs need.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "gpu/device/device.h"

namespace attn::gpu {

/// Ids of the switches, in the order of the list.
std::span<const std::string_view> fault_ids();
/// Switches one bug on and all others off, "none" being no bug, and forgets what runs left. False
/// for an unknown id. Waits for the device.
bool switch_fault(std::string_view id);
/// How often the bug made a difference since then: at least once where it did on the device. Waits.
std::int64_t reached_since_switch();
/// Runs of a layer since the switch, the present one not counted.
int count_call();
/// False when the device only answers with an error any more.
bool device_still_answers();

/// What a layer's first run since the switch had in its arrays, for bugs that keep it. A run that
/// is not captured gets it cut to what its own buffers hold; a captured one gets it as it is.
class KeptArrays {
 public:
  static KeptArrays& instance();
  /// [count] numbers, none above its present one.
  const std::uint32_t* numbers(int which, const std::uint32_t* now, std::int64_t count,
                               StreamHandle stream);
  /// [rows, columns] pages, none above its present one.
  const std::uint32_t* pages(const std::uint32_t* now, std::int64_t rows, std::int64_t columns,
                             StreamHandle stream);
  const float* scales(int which, const float* now, std::int64_t count, StreamHandle stream);
  void forget();

 private:
  struct Kept {
    std::vector<std::uint32_t> first;
    std::int64_t columns = 0;
    Buffer device;
  };
  void* keep(int which, const void* now, std::int64_t rows, std::int64_t columns, bool cut,
             StreamHandle stream);
  std::vector<Kept> kept_;
};

bool is_captured(StreamHandle stream);
void wait_for(StreamHandle stream);
/// Asks the device's allocator, which a capture forbids.
void allocate_something();

/// Launches on a stream of its own, after all of `stream` and before what comes later there. In a
/// capture the launch happens at once and is no part of the graph.
template <typename Launch>
void launch_beside(StreamHandle stream, const Launch& launch) {
  if (!is_captured(stream)) wait_for(stream);
  const Stream other;
  launch(other.get());
  other.synchronize();
}

}  // namespace attn::gpu
