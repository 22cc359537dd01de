#include "harness/backends/guarded_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <utility>

#include "reference/core/error.h"

namespace attn::harness {
namespace {

/// A wild index of this many bytes still names its tensor. Costs no memory, only addresses.
constexpr std::size_t kGuardSize = std::size_t{1} << 20;

/// What a signal handler can find out about guarded memory. A slot is free while `begin` is 0.
struct Entry {
  std::atomic<std::uintptr_t> begin{0};
  std::uintptr_t end = 0;
  std::uintptr_t data = 0;
  std::size_t size = 0;
  std::size_t width = 1;
  std::array<char, 48> name{};
};
// More tensors than any call has; those beyond it would be guarded but not named.
std::array<Entry, 512> g_entries;

std::size_t round_up(std::size_t n, std::size_t to) { return (n + to - 1) / to * to; }

void remember(std::span<const std::byte> zone, std::span<const std::byte> data, std::size_t width,
              const std::string& name) {
  for (Entry& entry : g_entries) {
    std::uintptr_t free = 0;
    constexpr std::uintptr_t kTaken = 1;  // below every address
    if (!entry.begin.compare_exchange_strong(free, kTaken)) continue;
    const auto begin = reinterpret_cast<std::uintptr_t>(zone.data());
    entry.end = begin + zone.size();
    entry.data = reinterpret_cast<std::uintptr_t>(data.data());
    entry.size = data.size();
    entry.width = width;
    const std::size_t length = std::min(name.size(), entry.name.size() - 1);
    std::memcpy(entry.name.data(), name.data(), length);
    entry.name[length] = '\0';
    entry.begin = begin;
    return;
  }
}

void forget(const std::byte* zone) {
  for (Entry& entry : g_entries) {
    if (entry.begin == reinterpret_cast<std::uintptr_t>(zone)) entry.begin = 0;
  }
}

}  // namespace

GuardedMemory::GuardedMemory(std::string name, std::size_t bytes, std::size_t width,
                             std::size_t alignment, GuardedEnd end)
    : name_(std::move(name)), size_(bytes), width_(width) {
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  pages_size_ = round_up(std::max<std::size_t>(bytes, 1), std::max(page, alignment));
  zone_size_ = pages_size_ + 2 * kGuardSize;
  void* const zone =
      mmap(nullptr, zone_size_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (zone == MAP_FAILED) {
    throw Error(ErrorKind::kInternal, "no memory for " + name_ + ", " + std::to_string(bytes) +
                                          " bytes; try a smaller case");
  }
  zone_ = static_cast<std::byte*>(zone);
  pages_ = zone_ + kGuardSize;
  if (mprotect(pages_, pages_size_, PROT_READ | PROT_WRITE) != 0) {
    munmap(zone_, zone_size_);
    throw Error(ErrorKind::kInternal, "no memory for " + name_ + ", " + std::to_string(bytes) +
                                          " bytes; try a smaller case");
  }
  std::memset(pages_, std::to_integer<int>(kPoison), pages_size_);
  const std::size_t room = pages_size_ - size_;
  data_ = pages_ + (end == GuardedEnd::kFirst ? 0 : room / alignment * alignment);
  remember({zone_, zone_size_}, {data_, size_}, width_, name_);
}

GuardedMemory::~GuardedMemory() {
  forget(zone_);
  munmap(zone_, zone_size_);
}

void GuardedMemory::make_read_only() { mprotect(pages_, pages_size_, PROT_READ); }

std::string GuardedMemory::overrun() const {
  const auto is_damaged = [](std::byte b) { return b != kPoison; };
  const std::byte* const last = data_ + size_;
  const std::byte* const after =
      std::find_if<const std::byte*>(last, pages_ + pages_size_, is_damaged);
  if (after != pages_ + pages_size_) {
    return describe_fault({name_.c_str(), after - data_, size_, width_}, true);
  }
  // The byte nearest to the tensor says most.
  for (const std::byte* before = data_; before != pages_;) {
    if (!is_damaged(*--before)) continue;
    return describe_fault({name_.c_str(), before - data_, size_, width_}, true);
  }
  return "";
}

FaultPlace locate_fault(const void* address) {
  const auto at = reinterpret_cast<std::uintptr_t>(address);
  for (const Entry& entry : g_entries) {
    const std::uintptr_t begin = entry.begin;
    if (begin <= 1 || at < begin || at >= entry.end) continue;
    return {entry.name.data(), static_cast<std::int64_t>(at - entry.data), entry.size, entry.width};
  }
  return {};
}

std::string describe_fault(const FaultPlace& place, bool is_write) {
  const auto width = static_cast<std::int64_t>(place.width);
  const auto elements = static_cast<std::int64_t>(place.size) / width;
  const std::int64_t element = (place.offset - (place.offset < 0 ? width - 1 : 0)) / width;
  std::string text = is_write ? "wrote " : "read ";
  if (place.offset < 0) {
    text += "before the start of ";
  } else if (element >= elements) {
    text += "past the end of ";
  } else {
    text += is_write ? "into the input " : "";
  }
  text += std::string(place.name) + ": element " + std::to_string(element);
  if (element >= 0) text += " of " + std::to_string(elements);
  return text + ", byte " + std::to_string(place.offset);
}

}  // namespace attn::harness
