#include "gpu/faults/fault_control.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <array>

#include "gpu/device/check.h"
#include "gpu/faults/fault_switch.h"

namespace attn::gpu {
namespace {

// Each leaves its mark in the library and in no other.
#define ATTN_GPU_FAULT_MARK(id) std::string_view("attn-fault:" #id).substr(11),
constexpr std::array kIds{ATTN_GPU_FAULTS(ATTN_GPU_FAULT_MARK)};
#undef ATTN_GPU_FAULT_MARK

struct Symbols {
  const void* on;
  const void* reached;
};
std::vector<Symbols>& symbols() {
  static std::vector<Symbols> all;
  return all;
}

int calls = 0;

/// Copies to or from a variable of each source file.
void* address_of(const void* symbol) {
  void* address = nullptr;
  check(cudaGetSymbolAddress(&address, symbol), "cudaGetSymbolAddress");
  return address;
}

}  // namespace

DeviceFaultSymbols::DeviceFaultSymbols(const void* on, const void* reached) {
  symbols().push_back({on, reached});
}

FaultState& host_fault_state() {
  static FaultState state;
  return state;
}

std::span<const std::string_view> fault_ids() { return kIds; }

bool switch_fault(std::string_view id) {
  const auto* const found = std::ranges::find(kIds, id);
  if (found == kIds.end() && id != "none") return false;
  const auto on = static_cast<FaultId>(found == kIds.end() ? 0 : found - kIds.begin() + 1);
  host_fault_state() = {on, 0};
  calls = 0;
  KeptArrays::instance().forget();
  constexpr unsigned kZero = 0;
  for (const Symbols& file : symbols()) {
    check(cudaMemcpy(address_of(file.on), &on, sizeof on, cudaMemcpyHostToDevice), "a switch");
    check(cudaMemcpy(address_of(file.reached), &kZero, sizeof kZero, cudaMemcpyHostToDevice),
          "a switch");
  }
  check(cudaDeviceSynchronize(), "a switch");
  return true;
}

std::int64_t reached_since_switch() {
  check(cudaDeviceSynchronize(), "a run");
  std::int64_t sum = host_fault_state().reached;
  for (const Symbols& file : symbols()) {
    unsigned reached = 0;
    check(cudaMemcpy(&reached, address_of(file.reached), sizeof reached, cudaMemcpyDeviceToHost),
          "a counter");
    sum += reached;
  }
  return sum;
}

int count_call() { return calls++; }

bool device_still_answers() { return cudaDeviceSynchronize() == cudaSuccess; }

bool is_captured(StreamHandle stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  check(cudaStreamIsCapturing(stream, &status), "cudaStreamIsCapturing");
  return status != cudaStreamCaptureStatusNone;
}

void wait_for(StreamHandle stream) { check(cudaStreamSynchronize(stream), "a wait in run()"); }

void allocate_something() { const Buffer unused(1 << 20); }

KeptArrays& KeptArrays::instance() {
  static KeptArrays arrays;
  return arrays;
}

void KeptArrays::forget() {
  for (Kept& kept : kept_) kept.first.clear();
}

void* KeptArrays::keep(int which, const void* now, std::int64_t rows, std::int64_t columns,
                       bool cut, StreamHandle stream) {
  kept_.resize(std::max(kept_.size(), static_cast<std::size_t>(which) + 1));
  Kept& kept = kept_[static_cast<std::size_t>(which)];
  if (is_captured(stream)) {
    fault_reached();  // whatever is launched later may differ
    return kept.device.data();
  }
  std::vector<std::uint32_t> values(static_cast<std::size_t>(rows * columns));
  wait_for(stream);
  check(cudaMemcpy(values.data(), now, values.size() * 4, cudaMemcpyDeviceToHost), "a copy");
  if (kept.first.empty()) {
    kept.first = values;
    kept.columns = columns;
  } else {
    const std::vector<std::uint32_t> present = values;
    for (std::size_t i = 0; i < values.size(); ++i) {
      const std::int64_t row = static_cast<std::int64_t>(i) / columns;
      const std::int64_t column = static_cast<std::int64_t>(i) % columns;
      const auto at = static_cast<std::size_t>(row * kept.columns + column);
      if (column >= kept.columns || at >= kept.first.size()) continue;
      values[i] = cut ? std::min(kept.first[at], present[i]) : kept.first[at];
    }
    if (values != present) fault_reached();
  }
  const std::size_t bytes = std::max<std::size_t>(values.size() * 4, 4);
  if (kept.device.size() < bytes) kept.device = Buffer(bytes);
  check(cudaMemcpy(kept.device.data(), values.data(), values.size() * 4, cudaMemcpyHostToDevice),
        "a copy");
  check(cudaDeviceSynchronize(), "a copy");
  return kept.device.data();
}

const std::uint32_t* KeptArrays::numbers(int which, const std::uint32_t* now, std::int64_t count,
                                         StreamHandle stream) {
  return static_cast<const std::uint32_t*>(keep(which, now, 1, count, true, stream));
}

const std::uint32_t* KeptArrays::pages(const std::uint32_t* now, std::int64_t rows,
                                       std::int64_t columns, StreamHandle stream) {
  return static_cast<const std::uint32_t*>(keep(8, now, rows, columns, true, stream));
}

const float* KeptArrays::scales(int which, const float* now, std::int64_t count,
                                StreamHandle stream) {
  return static_cast<const float*>(keep(which, now, 1, count, false, stream));
}

}  // namespace attn::gpu
