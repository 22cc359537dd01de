#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "harness/backends/worker_wire.h"

namespace attn::harness {

/// How a backend is kept apart.
struct Isolation {
  double timeout_seconds = 60.0;  ///< for each case, and for loading
  /// What a worker may allocate; 0: half of the machine's memory.
  std::uint64_t memory_bytes = 0;
  /// What is started as the worker, its words; the limit on memory is added as the last one. Empty:
  /// this program.
  std::vector<std::string> command;
};

/// What a worker leaves for its parent in shared memory when it dies of a wrong access.
struct WorkerNote {
  static constexpr std::uint32_t kSet = 0x65746f6e;  // "note"
  std::uint32_t set = 0;
  std::int32_t is_write = -1;  ///< -1: not known
  std::uint64_t address = 0;
  char tensor[48] = {};  ///< the guarded tensor near the address, "" for none
  std::int64_t offset = 0;
  std::uint64_t size = 0;
  std::uint64_t width = 1;
  std::uint64_t in_hole = 0;
};

/// Descriptors of a worker.
inline constexpr int kWorkerSocket = 3;
inline constexpr int kWorkerNote = 4;
/// The hidden verb that this program is started with.
inline constexpr char kWorkerVerb[] = "worker";

struct WorkerMessage {
  MessageKind kind{};
  std::vector<std::byte> data;
};

/// This program, started again as a worker, or another one that speaks its language: a child with
/// its own limits that answers one question at a time. Whatever happens in it, ask() returns or
/// throws.
class WorkerProcess {
 public:
  /// Throws Error(kInternal) when no process can be started.
  explicit WorkerProcess(const Isolation& isolation);
  ~WorkerProcess();
  WorkerProcess(const WorkerProcess&) = delete;
  WorkerProcess& operator=(const WorkerProcess&) = delete;

  /// Sends a question and waits for the answer. Throws BackendFailure (kCrashed or kTimedOut, with
  /// how it ended, where it faulted and what it printed last) when there is none in time; the
  /// worker is dead then.
  WorkerMessage ask(MessageKind kind, const std::vector<std::byte>& data);

 private:
  using Clock = std::chrono::steady_clock;

  void spawn();
  bool send(std::vector<std::byte>& unsent, std::size_t& sent) const;
  bool receive(WorkerMessage& message, std::vector<std::byte>& received) const;
  void read_output();
  void wait(bool wants_to_send, Clock::time_point deadline, bool& died) const;
  [[noreturn]] void died(const std::string& how);
  [[noreturn]] void timed_out();
  /// How the process ended, and the end of what it printed.
  std::string obituary();
  std::string last_output() const;
  void stop();

  Isolation isolation_;
  pid_t pid_ = -1;
  int process_ = -1;  ///< readable once the process has ended
  int socket_ = -1;
  int output_ = -1;  ///< stdout and stderr
  WorkerNote* note_ = nullptr;
  std::uint32_t sequence_ = 0;
  std::string printed_;  ///< the end of it
};

/// Half of this machine's memory.
std::uint64_t default_worker_memory();

}  // namespace attn::harness
