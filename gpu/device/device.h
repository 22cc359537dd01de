#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

struct CUstream_st;
struct CUgraphExec_st;

namespace attn::gpu {

/// The runtime's cudaStream_t, so that callers need no CUDA header.
using StreamHandle = CUstream_st*;

/// "" when kernels of this build can run on the current device, else one line why not: no driver,
/// no device, a driver older than the runtime, no machine code for the device's architecture.
/// Never throws and needs neither a driver nor a device: the runtime is linked statically and loads
/// the driver when first called.
std::string device_unavailable_reason();

struct DeviceInfo {
  std::string name;
  int major = 0;  ///< compute capability
  int minor = 0;
  int multiprocessors = 0;
  std::int64_t memory_bytes = 0;
  std::int64_t l2_bytes = 0;
  int driver = 0;  ///< 13000 is CUDA 13.0
  int runtime = 0;
};
/// The current device. Throws Error when there is none.
DeviceInfo device_info();

/// Multiprocessors of the current device; a cheap query.
int multiprocessor_count();

/// True when kernels run on the current device as compiled for compute capability 9.0 or later:
/// they may start before the grid before them has ended, and blocks may form clusters.
bool runs_hopper_code();

/// A stream that does not wait for the default one. Move-only.
class Stream {
 public:
  Stream();
  ~Stream();
  Stream(Stream&& other) noexcept;
  Stream& operator=(Stream&&) = delete;
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  StreamHandle get() const { return stream_; }
  void synchronize() const;

 private:
  StreamHandle stream_ = nullptr;
};

/// Plain device memory, at least 256-byte aligned. Move-only.
class Buffer {
 public:
  Buffer() = default;
  /// Throws Error with the size and what is free when the device is out of memory.
  explicit Buffer(std::size_t bytes);
  ~Buffer();
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  std::byte* data() const { return data_; }
  std::size_t size() const { return size_; }

 private:
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

void copy_to_device(void* device, const void* host, std::size_t bytes, StreamHandle stream);
void copy_to_host(void* host, const void* device, std::size_t bytes, StreamHandle stream);
void fill_bytes(void* device, int value, std::size_t bytes, StreamHandle stream);

/// Cuts one allocation into aligned parts. Asked twice: with no base it counts, with one it hands
/// out addresses, so that what a plan asks for and what a run uses cannot differ.
class Arena {
 public:
  static constexpr std::size_t kAlignment = 256;

  Arena() = default;
  Arena(void* base, std::size_t capacity)
      : base_(static_cast<std::byte*>(base)), capacity_(capacity) {}

  /// nullptr while counting. Throws Error when the allocation is too small.
  void* take(std::size_t bytes);
  template <typename T>
  T* take_array(std::int64_t count) {
    return static_cast<T*>(take(static_cast<std::size_t>(count) * sizeof(T)));
  }
  std::size_t used() const { return used_; }

 private:
  std::byte* base_ = nullptr;
  std::size_t capacity_ = 0;
  std::size_t used_ = 0;
};

/// What `record(stream)` launches, captured once and replayed.
class Graph {
 public:
  template <typename Record>
  Graph(const Stream& stream, const Record& record) {
    begin_capture(stream.get());
    try {
      record(stream.get());
    } catch (...) {
      abandon_capture(stream.get());
      throw;
    }
    end_capture(stream.get());
  }
  ~Graph();
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  void launch(StreamHandle stream) const;

 private:
  static void begin_capture(StreamHandle stream);
  static void abandon_capture(StreamHandle stream);
  void end_capture(StreamHandle stream);

  CUgraphExec_st* graph_ = nullptr;
};

/// Time between two points of a stream.
class Timer {
 public:
  Timer();
  ~Timer();
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

  void start(StreamHandle stream);
  void stop(StreamHandle stream);
  double milliseconds() const;  ///< waits for stop()

 private:
  void* begin_ = nullptr;
  void* end_ = nullptr;
};

}  // namespace attn::gpu
