#include "harness/backends/cuda/device_image.h"

#include <string>

#include "reference/core/error.h"

namespace attn::harness {

std::size_t DeviceImage::add(const char* name, std::size_t bytes, const void* data,
                             std::size_t given, bool may_change) {
  const std::size_t offset = host_.empty() ? kGuard : host_.size();  // a guard ends each part
  const std::size_t end = (offset + bytes + kGuard - 1) / kGuard * kGuard + kGuard;
  host_.resize(end, kPoison);
  if (given > 0 && data != nullptr) std::memcpy(host_.data() + offset, data, given);
  parts_.push_back({name, offset, bytes, may_change});
  return offset;
}

std::size_t DeviceImage::add_workspace(std::size_t bytes, std::size_t zeros) {
  const std::size_t offset = add("workspace", bytes, nullptr, 0, true);
  if (zeros > 0) std::memset(host_.data() + offset, 0, zeros);
  workspace_end_ = offset + bytes;
  return offset;
}

void DeviceImage::upload(std::byte* device, gpu::StreamHandle stream) {
  device_ = device;
  gpu::copy_to_device(device, host_.data(), host_.size(), stream);
}

void DeviceImage::upload_again(std::byte* device, gpu::StreamHandle stream) {
  device_ = device;
  gpu::copy_to_device(device + workspace_end_, host_.data() + workspace_end_,
                      host_.size() - workspace_end_, stream);
}

void DeviceImage::download(const gpu::Stream& stream) {
  after_.resize(host_.size());
  gpu::copy_to_host(after_.data(), device_, after_.size(), stream.get());
  stream.synchronize();
}

void DeviceImage::check() const {
  std::size_t guard = 0;
  const auto untouched = [&](std::size_t begin, std::size_t end) {
    return std::memcmp(host_.data() + begin, after_.data() + begin, end - begin) == 0;
  };
  for (const Part& part : parts_) {
    if (!untouched(guard, part.offset)) {
      throw Error(ErrorKind::kInternal,
                  std::string("cuda: the guard before ") + part.name + " was written over");
    }
    guard = part.offset + part.bytes;
    if (!part.may_change && !untouched(part.offset, guard)) {
      throw Error(ErrorKind::kInternal, std::string("cuda: the input ") + part.name + " changed");
    }
  }
  if (!untouched(guard, host_.size())) {
    throw Error(ErrorKind::kInternal,
                std::string("cuda: the guard behind ") + parts_.back().name + " was written over");
  }
}

}  // namespace attn::harness
