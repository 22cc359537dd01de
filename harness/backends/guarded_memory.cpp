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
  const std::span<std::byte>* open = nullptr;  ///< what can be accessed; lives as long as the entry
  std::size_t num_open = 0;
  std::array<char, 48> name{};
};
// More tensors than any call has; those beyond it would be guarded but not named.
std::array<Entry, 512> g_entries;

std::size_t round_up(std::size_t n, std::size_t to) { return (n + to - 1) / to * to; }

void remember(std::span<const std::byte> zone, std::span<const std::byte> data, std::size_t width,
              const std::string& name, const std::vector<std::span<std::byte>>& open) {
  for (Entry& entry : g_entries) {
    std::uintptr_t free = 0;
    constexpr std::uintptr_t kTaken = 1;  // below every address
    if (!entry.begin.compare_exchange_strong(free, kTaken)) continue;
    const auto begin = reinterpret_cast<std::uintptr_t>(zone.data());
    entry.end = begin + zone.size();
    entry.data = reinterpret_cast<std::uintptr_t>(data.data());
    entry.size = data.size();
    entry.width = width;
    entry.open = open.data();
    entry.num_open = open.size();
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
                             std::size_t alignment, GuardedEnd end, std::span<const ByteRange> used)
    : name_(std::move(name)), size_(bytes), width_(width) {
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  const std::size_t pages_size =
      round_up(std::max<std::size_t>(bytes, 1), std::max(page, alignment));
  // A 32-bit offset that overflows points as far as this before a sparse tensor.
  const std::size_t before =
      used.empty() ? kGuardSize : round_up((std::size_t{1} << 32) * width, page);
  zone_size_ = before + pages_size + kGuardSize;
  void* const zone =
      mmap(nullptr, zone_size_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (zone == MAP_FAILED) no_memory();
  zone_ = static_cast<std::byte*>(zone);
  std::byte* const pages = zone_ + before;
  const std::size_t room = pages_size - size_;
  data_ = pages + (end == GuardedEnd::kFirst ? 0 : room / alignment * alignment);
  if (used.empty()) open_.emplace_back(pages, pages_size);
  for (const ByteRange& range : used) open(range, page);
  for (const std::span<std::byte> part : open_) {
    if (mprotect(part.data(), part.size(), PROT_READ | PROT_WRITE) != 0) {
      munmap(zone_, zone_size_);
      no_memory();
    }
    std::memset(part.data(), std::to_integer<int>(kPoison), part.size());
  }
  remember({zone_, zone_size_}, {data_, size_}, width_, name_, open_);
}

GuardedMemory::~GuardedMemory() {
  forget(zone_);
  munmap(zone_, zone_size_);
}

void GuardedMemory::no_memory() const {
  throw Error(ErrorKind::kInternal, "no memory for " + name_ + ", " + std::to_string(size_) +
                                        " bytes; try a smaller case");
}

/// Adds the memory pages that a range of the data touches; those of the one before may be the same.
void GuardedMemory::open(const ByteRange& range, std::size_t page) {
  if (range.begin == range.end) return;
  const auto down = [&](std::byte* at) { return at - reinterpret_cast<std::uintptr_t>(at) % page; };
  std::byte* begin = down(data_ + range.begin);
  std::byte* const end = down(data_ + range.end - 1) + page;
  if (!open_.empty() && begin <= open_.back().data() + open_.back().size()) {
    begin = open_.back().data();
    open_.pop_back();
  }
  open_.emplace_back(begin, end);
}

std::vector<ByteRange> GuardedMemory::accessible() const {
  std::vector<ByteRange> ranges;
  for (const std::span<std::byte> part : open_) {
    const std::byte* const begin = std::max<const std::byte*>(part.data(), data_);
    const std::byte* const end =
        std::min<const std::byte*>(part.data() + part.size(), data_ + size_);
    if (begin >= end) continue;
    ranges.push_back(
        {static_cast<std::size_t>(begin - data_), static_cast<std::size_t>(end - data_)});
  }
  return ranges;
}

void GuardedMemory::make_read_only() {
  for (const std::span<std::byte> part : open_) mprotect(part.data(), part.size(), PROT_READ);
}

std::string GuardedMemory::overrun() const {
  if (open_.empty()) return "";
  const auto is_damaged = [](std::byte b) { return b != kPoison; };
  const std::byte* const first = open_.front().data();
  const std::byte* const end = open_.back().data() + open_.back().size();
  // With nothing in it the tensor lies in no page that exists.
  const std::byte* const last = std::max<const std::byte*>(data_ + size_, open_.back().data());
  const std::byte* const after = std::find_if<const std::byte*>(last, end, is_damaged);
  if (after != end) return describe_fault({name_.c_str(), after - data_, size_, width_}, true);
  // The byte nearest to the tensor says most.
  for (const std::byte* before = data_; before > first;) {
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
    bool is_open = false;
    for (std::size_t i = 0; i < entry.num_open; ++i) {
      const auto open = reinterpret_cast<std::uintptr_t>(entry.open[i].data());
      is_open = is_open || (at >= open && at - open < entry.open[i].size());
    }
    const bool inside = at >= entry.data && at - entry.data < entry.size;
    return {entry.name.data(), static_cast<std::int64_t>(at - entry.data), entry.size, entry.width,
            inside && !is_open};
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
  } else if (place.in_hole) {
    text += is_write ? "to a place that holds nothing of " : "a place that holds nothing of ";
  } else {
    text += is_write ? "into the input " : "";
  }
  text += std::string(place.name) + ": element " + std::to_string(element);
  if (element >= 0) text += " of " + std::to_string(elements);
  return text + ", byte " + std::to_string(place.offset);
}

}  // namespace attn::harness
