#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace attn::harness {

/// Which end of a tensor touches pages that cannot be accessed. What lies between the other end and
/// its pages is filled and checked after the call.
enum class GuardedEnd { kLast, kFirst };

/// What a run must leave behind in memory that nobody wrote: NaN in every floating-point type.
inline constexpr std::byte kPoison{0xff};

/// Bytes [begin, end) of an allocation.
struct ByteRange {
  std::size_t begin = 0;
  std::size_t end = 0;
};

/// Memory of one tensor between two zones that cannot be accessed, whatever its size. It begins
/// filled with poison. Reading or writing beyond the guarded end faults at the element; see
/// locate_fault. Of an allocation that is mostly gaps only the memory pages with something in them
/// exist: the others are addresses that cannot be accessed.
class GuardedMemory {
 public:
  /// `width` is of one element, `alignment` a power of two; bytes that it leaves behind a guarded
  /// last element are checked, but not protected. Throws Error(kInternal) when there is no memory.
  /// `used`: in ascending order, what there is of a sparse allocation; empty: all of it.
  GuardedMemory(std::string name, std::size_t bytes, std::size_t width, std::size_t alignment,
                GuardedEnd end, std::span<const ByteRange> used = {});
  ~GuardedMemory();
  GuardedMemory(const GuardedMemory&) = delete;
  GuardedMemory& operator=(const GuardedMemory&) = delete;

  const std::string& name() const { return name_; }
  std::byte* data() { return data_; }
  std::span<std::byte> bytes() { return {data_, size_}; }
  std::span<const std::byte> bytes() const { return {data_, size_}; }
  /// What can be accessed of bytes(), in ascending order: whole memory pages but at the ends.
  std::vector<ByteRange> accessible() const;

  /// From now on a write faults.
  void make_read_only();
  /// "wrote before the start of lse: element -1, byte -4", or "" when the filling around it is
  /// whole.
  std::string overrun() const;

 private:
  [[noreturn]] void no_memory() const;
  void open(const ByteRange& range, std::size_t page);

  std::string name_;
  std::byte* zone_ = nullptr;  ///< everything, guards included
  std::size_t zone_size_ = 0;
  std::vector<std::span<std::byte>> open_;  ///< what can be accessed, whole memory pages
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
  std::size_t width_ = 1;
};

/// Where an address lies with respect to the guarded memory of this process.
struct FaultPlace {
  const char* name = nullptr;  ///< of the tensor, null when it is near none
  /// Bytes from its start; negative before it, at least `size` after it.
  std::int64_t offset = 0;
  std::size_t size = 0;   ///< of the tensor, bytes
  std::size_t width = 1;  ///< of one element, bytes
  bool in_hole = false;   ///< between its elements, where a sparse allocation has no memory
};

/// Safe to call from a signal handler.
FaultPlace locate_fault(const void* address);

/// "wrote past the end of attn_out: element 2048 of 2048, byte 8192".
std::string describe_fault(const FaultPlace& place, bool is_write);

}  // namespace attn::harness
