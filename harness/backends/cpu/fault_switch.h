#pragma once

// Switches of planted bugs (harness/faults/catalogue.h says what each is). ATTN_FAULT(id) stands
// where the mistake would be made and is true while that bug is switched on:
//
//   const std::int64_t slot = p % page_size + (ATTN_FAULT(slot_off_by_one) ? 1 : 0);
//
// A second argument says when the mistake makes a difference; only then does it count as reached.
// ATTN_KEPT(id, key, value) is the value, or with the bug on what it was in the backend's first
// call for that key, at most the optional fourth argument. ATTN_SCRATCH(id, target, count) adds 0
// times memory that nobody cleared, which shows where that holds NaN. Ordinary builds have none of
// them: they are `false`, the value, and nothing. Only attn_faulty, the same sources compiled with
// ATTN_FAULTY, holds the switches.

#ifndef ATTN_FAULTY

#define ATTN_FAULT(...) false
#define ATTN_KEPT(id, key, value, ...) (value)
#define ATTN_SCRATCH(id, target, count) static_cast<void>(0)

#else

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string_view>

namespace attn::harness::cpu {

/// One switch. All that are linked into the library are in one list.
struct FaultSwitch {
  explicit FaultSwitch(std::string_view fault_id);
  std::string_view id;
};

/// Whether the backend that runs on this thread has the bug on.
bool is_switched_on(const FaultSwitch& fault) noexcept;
/// Counts one time that the bug made a difference. Always true.
bool count_reached() noexcept;
/// The first value that this thread's backend had for the key.
double kept_value(std::int64_t key, double value);
/// Runs of this thread's backend before the current one.
std::int64_t calls_before() noexcept;
/// Adds 0 times whatever memory that was not cleared holds.
void add_zero_times_scratch(float* target, std::int64_t count);

/// What every switch leaves in the library and in no other: "attn-fault:ID".
template <std::size_t kSize>
struct FaultMark {
  char text[kSize];
  consteval FaultMark(const char (&mark)[kSize]) { std::copy_n(mark, kSize, text); }
  constexpr std::string_view id() const {
    return std::string_view(text, kSize - 1).substr(std::string_view("attn-fault:").size());
  }
};

template <FaultMark kMark>
inline const FaultSwitch kFaultSwitch{kMark.id()};

template <FaultMark kMark, typename T>
T kept(std::int64_t key, T value, T limit = std::numeric_limits<T>::max()) {
  if (!is_switched_on(kFaultSwitch<kMark>)) return value;
  const T first = std::min(static_cast<T>(kept_value(key, static_cast<double>(value))), limit);
  if (first != value) count_reached();
  return first;
}

template <FaultMark kMark>
void add_scratch(float* target, std::int64_t count) {
  if (!is_switched_on(kFaultSwitch<kMark>) || count == 0) return;
  count_reached();
  add_zero_times_scratch(target, count);
}

}  // namespace attn::harness::cpu

#define ATTN_FAULT(id, ...)                                                                    \
  (::attn::harness::cpu::is_switched_on(::attn::harness::cpu::kFaultSwitch<"attn-fault:" #id>) \
       __VA_OPT__(&&(__VA_ARGS__)) &&                                                          \
   ::attn::harness::cpu::count_reached())
#define ATTN_KEPT(id, key, value, ...) \
  (::attn::harness::cpu::kept<"attn-fault:" #id>(key, value __VA_OPT__(, ) __VA_ARGS__))

#define ATTN_SCRATCH(id, target, count) \
  (::attn::harness::cpu::add_scratch<"attn-fault:" #id>(target, count))

#endif
