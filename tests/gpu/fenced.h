#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstring>
#include <new>

namespace attn::gpu {

/// Bytes with nothing to read behind the last: a kernel that goes on there dies.
class Fenced {
 public:
  Fenced(const void* from, std::size_t bytes) : bytes_(bytes) {
    room_ = (bytes_ + kPage - 1) / kPage * kPage;
    void* const at =
        mmap(nullptr, room_ + kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED || mprotect(static_cast<char*>(at) + room_, kPage, PROT_NONE) != 0) {
      throw std::bad_alloc();
    }
    pages_ = static_cast<std::byte*>(at);
    fill(from);
  }
  template <typename Vector>
  explicit Fenced(const Vector& values)
      : Fenced(values.data(), values.size() * sizeof(values[0])) {}
  ~Fenced() { munmap(pages_, room_ + kPage); }
  Fenced(const Fenced&) = delete;
  Fenced& operator=(const Fenced&) = delete;

  void fill(const void* from) { std::memcpy(data(), from, bytes_); }
  template <typename Vector>
  void fill(const Vector& values) {
    fill(static_cast<const void*>(values.data()));
  }
  std::byte* data() const { return pages_ + room_ - bytes_; }

 private:
  static constexpr std::size_t kPage = 4096;
  std::size_t bytes_;
  std::size_t room_ = 0;
  std::byte* pages_ = nullptr;
};

}  // namespace attn::gpu
