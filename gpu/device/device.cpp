#include "gpu/device/device.h"

#include <cuda_runtime_api.h>

#include <utility>

#include "gpu/device/check.h"
#include "gpu/device/messages.h"
#include "gpu/device/probe.h"
#include "reference/core/error.h"

namespace attn::gpu {

void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // the next call must not report this one again
  std::string message("cuda: ");
  message += what;
  message += " failed: ";
  message += cudaGetErrorName(status);
  message += " (";
  message += cudaGetErrorString(status);
  message += ")";
  throw Error(ErrorKind::kInternal, message);
}

std::string device_unavailable_reason() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  cudaGetLastError();
  if (status == cudaErrorInsufficientDriver) {
    return "no driver, or one too old for this build's CUDA runtime " +
           std::to_string(CUDART_VERSION / 1000) + "." + std::to_string(CUDART_VERSION % 1000 / 10);
  }
  if (status != cudaSuccess) return std::string("no device: ") + cudaGetErrorString(status);
  if (count == 0) return "no device";
  const auto image = static_cast<cudaError_t>(probe_kernel_image());
  if (image == cudaSuccess) return "";
  cudaDeviceProp properties;
  if (cudaGetDeviceProperties(&properties, 0) != cudaSuccess) {
    cudaGetLastError();
    return std::string("the device does not answer: ") + cudaGetErrorString(image);
  }
  return no_code_message(properties.name, properties.major, properties.minor,
                         cudaGetErrorName(image));
}

std::string no_code_message(const std::string& device, int major, int minor,
                            const std::string& failure) {
  const std::string capability = std::to_string(major) + "." + std::to_string(minor);
  return device + " has compute capability " + capability +
         ", for which this build holds no code (" + failure +
         "); configure with -DCMAKE_CUDA_ARCHITECTURES=" + std::to_string(major) +
         std::to_string(minor);
}

std::string out_of_memory_message(std::size_t wanted, std::size_t free, std::size_t total) {
  return "cuda: out of memory: " + std::to_string(wanted) + " bytes wanted, " +
         std::to_string(free) + " of " + std::to_string(total) +
         " free; try a smaller batch or fewer keys";
}

DeviceInfo device_info() {
  int device = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceProperties");
  DeviceInfo info;
  info.name = properties.name;
  info.major = properties.major;
  info.minor = properties.minor;
  info.multiprocessors = properties.multiProcessorCount;
  info.memory_bytes = static_cast<std::int64_t>(properties.totalGlobalMem);
  info.l2_bytes = properties.l2CacheSize;
  check(cudaDriverGetVersion(&info.driver), "cudaDriverGetVersion");
  check(cudaRuntimeGetVersion(&info.runtime), "cudaRuntimeGetVersion");
  return info;
}

bool runs_hopper_code() { return probe_hopper_code(); }

int multiprocessor_count() {
  int device = 0;
  int count = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  check(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device),
        "cudaDeviceGetAttribute");
  return count;
}

Stream::Stream() {
  check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate");
}
Stream::~Stream() {
  if (stream_ != nullptr) cudaStreamDestroy(stream_);
}
Stream::Stream(Stream&& other) noexcept : stream_(std::exchange(other.stream_, nullptr)) {}

void Stream::synchronize() const { check(cudaStreamSynchronize(stream_), "a kernel or a copy"); }

Buffer::Buffer(std::size_t bytes) : size_(bytes) {
  if (bytes == 0) return;
  void* data = nullptr;
  const cudaError_t status = cudaMalloc(&data, bytes);
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    std::size_t free = 0;
    std::size_t total = 0;
    cudaMemGetInfo(&free, &total);
    throw Error(ErrorKind::kInternal, out_of_memory_message(bytes, free, total));
  }
  check(status, "cudaMalloc");
  data_ = static_cast<std::byte*>(data);
}
Buffer::~Buffer() {
  if (data_ != nullptr) cudaFree(data_);
}
Buffer::Buffer(Buffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
Buffer& Buffer::operator=(Buffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

void copy_to_device(void* device, const void* host, std::size_t bytes, StreamHandle stream) {
  if (bytes == 0) return;
  check(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, stream),
        "a copy to the device");
}
void copy_to_host(void* host, const void* device, std::size_t bytes, StreamHandle stream) {
  if (bytes == 0) return;
  check(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, stream), "a copy to the host");
}
void fill_bytes(void* device, int value, std::size_t bytes, StreamHandle stream) {
  if (bytes == 0) return;
  check(cudaMemsetAsync(device, value, bytes, stream), "cudaMemset");
}

void* Arena::take(std::size_t bytes) {
  const std::size_t begin = used_;
  used_ = begin + (bytes + kAlignment - 1) / kAlignment * kAlignment;
  if (base_ == nullptr) return nullptr;
  if (used_ > capacity_) {
    throw Error(ErrorKind::kUsage, "cuda: workspace of " + std::to_string(capacity_) +
                                       " bytes is too small, at least " + std::to_string(used_) +
                                       " are needed; allocate what the plan asks for");
  }
  return base_ + begin;
}

void Graph::begin_capture(StreamHandle stream) {
  // Relaxed would let a stray allocation through; thread-local capture refuses it.
  check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "begin of a capture");
}
void Graph::abandon_capture(StreamHandle stream) {
  cudaGraph_t graph = nullptr;
  cudaStreamEndCapture(stream, &graph);
  if (graph != nullptr) cudaGraphDestroy(graph);
  cudaGetLastError();
}
void Graph::end_capture(StreamHandle stream) {
  cudaGraph_t graph = nullptr;
  check(cudaStreamEndCapture(stream, &graph), "end of a capture");
  const cudaError_t status = cudaGraphInstantiate(&graph_, graph, 0);
  cudaGraphDestroy(graph);
  check(status, "cudaGraphInstantiate");
}
Graph::~Graph() {
  if (graph_ != nullptr) cudaGraphExecDestroy(graph_);
}
void Graph::launch(StreamHandle stream) const {
  check(cudaGraphLaunch(graph_, stream), "cudaGraphLaunch");
}

Timer::Timer() {
  cudaEvent_t begin = nullptr;
  cudaEvent_t end = nullptr;
  check(cudaEventCreate(&begin), "cudaEventCreate");
  check(cudaEventCreate(&end), "cudaEventCreate");
  begin_ = begin;
  end_ = end;
}
Timer::~Timer() {
  cudaEventDestroy(static_cast<cudaEvent_t>(begin_));
  cudaEventDestroy(static_cast<cudaEvent_t>(end_));
}
void Timer::start(StreamHandle stream) {
  check(cudaEventRecord(static_cast<cudaEvent_t>(begin_), stream), "cudaEventRecord");
}
void Timer::stop(StreamHandle stream) {
  check(cudaEventRecord(static_cast<cudaEvent_t>(end_), stream), "cudaEventRecord");
}
double Timer::milliseconds() const {
  check(cudaEventSynchronize(static_cast<cudaEvent_t>(end_)), "cudaEventSynchronize");
  float milliseconds = 0.0f;
  check(cudaEventElapsedTime(&milliseconds, static_cast<cudaEvent_t>(begin_),
                             static_cast<cudaEvent_t>(end_)),
        "cudaEventElapsedTime");
  return static_cast<double>(milliseconds);
}

}  // namespace attn::gpu
