#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "harness/backends/backend.h"
#include "harness/backends/worker_process.h"

namespace attn::harness {

/// The backend of `spec` (any of make_backend) in worker processes: one for each thread that runs a
/// case, kept from case to case and replaced when it died. Only for programs whose verb "worker"
/// calls worker_main. Throws Error(kUsage) for what make_backend refuses. A backend that dies while
/// it is loaded is a BackendFailure of every case.
std::unique_ptr<Backend> make_isolated_backend(const std::string& spec, const Isolation& isolation);

/// Makes the backend of the spec that a worker is asked to load.
using BackendFactory = std::function<std::unique_ptr<Backend>(const std::string& spec)>;

/// The other end: answers questions on kWorkerSocket until it is closed. Never returns: the process
/// ends without the destructors of what a plug-in brought.
[[noreturn]] void worker_main(std::uint64_t memory_bytes, BackendFactory factory);

}  // namespace attn::harness
