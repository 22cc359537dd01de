#pragma once

#include <cstddef>
#include <cstring>
#include <vector>

#include "gpu/device/device.h"
#include "reference/core/tensor.h"

namespace attn::harness {

/// Device memory of one run, in one allocation: buffers with guards between them. Everything is
/// filled with kPoison first, which is NaN in every float type, so that reads of what was never
/// written show; after the run the guards must still hold it and the inputs must be unchanged.
class DeviceImage {
 public:
  static constexpr std::byte kPoison{0xff};

  /// Space for `bytes`, of which `data` fills the first `given`; returns its offset. `data` null:
  /// an output, poisoned.
  std::size_t add(const char* name, std::size_t bytes, const void* data, std::size_t given,
                  bool may_change);
  /// Workspace, the first part: zeros at its start, poison behind. A later call may keep it.
  std::size_t add_workspace(std::size_t bytes, std::size_t zeros);
  std::size_t size() const { return host_.size(); }

  void upload(std::byte* device, gpu::StreamHandle stream);
  /// All but the workspace, in which whatever ran there before has left what it left.
  void upload_again(std::byte* device, gpu::StreamHandle stream);
  /// Another copy of the image, uploaded before.
  void use(std::byte* device) { device_ = device; }
  void download(const gpu::Stream& stream);
  /// Throws Error naming the buffer whose guard or whose input bytes the run wrote over.
  void check() const;

  template <typename T>
  T* at(std::size_t offset) const {
    return reinterpret_cast<T*>(device_ + offset);
  }
  const std::byte* result(std::size_t offset) const { return after_.data() + offset; }

 private:
  static constexpr std::size_t kGuard = 256;
  struct Part {
    const char* name;
    std::size_t offset;
    std::size_t bytes;
    bool may_change;
  };
  std::vector<std::byte> host_;
  std::vector<std::byte> after_;
  std::vector<Part> parts_;
  std::size_t workspace_end_ = 0;  ///< where its guard begins
  std::byte* device_ = nullptr;
};

}  // namespace attn::harness
