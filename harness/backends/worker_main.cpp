#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "harness/backends/backend_failure.h"
#include "harness/backends/execution.h"
#include "harness/backends/guarded_memory.h"
#include "harness/backends/layout_taker.h"
#include "harness/backends/worker.h"
#include "reference/core/error.h"

#if defined(__SANITIZE_ADDRESS__)
constexpr bool kHasShadowMemory = true;
#else
constexpr bool kHasShadowMemory = false;
#endif

namespace attn::harness {
namespace {

WorkerNote* g_note = nullptr;

/// 1 for a write, 0 for a read, -1 where the processor does not say.
int access_of([[maybe_unused]] const void* context) {
#if defined(__x86_64__) && defined(__linux__)
  constexpr greg_t kWriteBit = 2;
  const auto* const machine = static_cast<const ucontext_t*>(context);
  return (machine->uc_mcontext.gregs[REG_ERR] & kWriteBit) != 0 ? 1 : 0;
#else
  return -1;
#endif
}

/// Leaves a note and lets the signal end the process as it would have.
void note_fault(int number, siginfo_t* info, void* context) {
  const bool is_fault = info->si_code > 0;  // else another process, or this one, sent the signal
  if (g_note != nullptr && is_fault) {
    const FaultPlace place = locate_fault(info->si_addr);
    g_note->is_write = access_of(context);
    g_note->address = reinterpret_cast<std::uint64_t>(info->si_addr);
    g_note->offset = place.offset;
    g_note->size = place.size;
    g_note->width = place.width;
    g_note->in_hole = place.in_hole ? 1 : 0;
    for (std::size_t i = 0; place.name != nullptr && i + 1 < sizeof(g_note->tensor); ++i) {
      g_note->tensor[i] = place.name[i];
      if (place.name[i] == '\0') break;
    }
    g_note->set = WorkerNote::kSet;
  }
  signal(number, SIG_DFL);
  raise(number);
}

void install_fault_handler() {
  void* const shared =
      mmap(nullptr, sizeof(WorkerNote), PROT_READ | PROT_WRITE, MAP_SHARED, kWorkerNote, 0);
  if (shared != MAP_FAILED) g_note = static_cast<WorkerNote*>(shared);
  // A stack of its own: the fault may be that the other one is full.
  static std::array<char, 1 << 16> stack;
  stack_t alternative{};
  alternative.ss_sp = stack.data();
  alternative.ss_size = stack.size();
  sigaltstack(&alternative, nullptr);
  struct sigaction action {};
  action.sa_sigaction = note_fault;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigemptyset(&action.sa_mask);
  for (const int number : {SIGSEGV, SIGBUS}) sigaction(number, &action, nullptr);
  // A sanitizer's handlers would end the process with an exit code of their own instead.
  for (const int number : {SIGFPE, SIGILL}) signal(number, SIG_DFL);
}

void confine(std::uint64_t memory_bytes) {
  const rlimit no_core{0, 0};
  setrlimit(RLIMIT_CORE, &no_core);
  // Writable memory, not addresses: drivers reserve far more of those than they use. A sanitizer's
  // shadow is writable.
  if (!kHasShadowMemory) {
    const rlimit memory{memory_bytes, memory_bytes};
    setrlimit(RLIMIT_DATA, &memory);
  }
}

/// Ends the process when its parent is gone, whatever the backend is doing. The socket says so at
/// once; whoever else holds an end of it, or closed ours, cannot keep a worker alive either.
void watch_parent() {
  std::thread([parent = getppid()] {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, nullptr);
    constexpr int kLookMilliseconds = 250;
    pollfd socket{kWorkerSocket, 0, 0};
    while (getppid() == parent) {
      if (poll(&socket, 1, kLookMilliseconds) <= 0) continue;
      if ((socket.revents & POLLNVAL) == 0) break;  // hung up
      socket.fd = -1;                               // the backend closed it
    }
    usleep(500'000);  // the backend's destructor has this long
    _exit(0);
  }).detach();
}

/// False at the end of the stream.
bool read_all(void* data, std::size_t size) {
  char* next = static_cast<char*>(data);
  while (size > 0) {
    const ssize_t n = read(kWorkerSocket, next, size);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    next += n;
    size -= static_cast<std::size_t>(n);
  }
  return true;
}

bool write_all(const void* data, std::size_t size) {
  const char* next = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t n = write(kWorkerSocket, next, size);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    next += n;
    size -= static_cast<std::size_t>(n);
  }
  return true;
}

class Worker {
 public:
  explicit Worker(BackendFactory factory) : factory_(std::move(factory)) {}

  /// The answer to one question.
  std::pair<MessageKind, WireWriter> answer(MessageKind kind, WireReader question) {
    WireWriter writer;
    try {
      answer(kind, question, writer);
      return {MessageKind::kAnswer, std::move(writer)};
    } catch (const Error& error) {
      writer = {};
      writer.number(static_cast<std::uint64_t>(error.kind()));
      for (const std::string& text : {std::string(error.what()), error.field(), error.rule()}) {
        writer.text(text);
      }
      return {MessageKind::kError, std::move(writer)};
    } catch (const BackendFailure& failure) {
      writer = {};
      writer.number(static_cast<std::uint64_t>(failure.status()));
      writer.text(failure.what());
      return {MessageKind::kFailure, std::move(writer)};
    } catch (const std::exception& error) {
      writer = {};
      writer.text(error.what());
    } catch (...) {
      writer = {};
      writer.text("one that is no std::exception");
    }
    return {MessageKind::kException, std::move(writer)};
  }

 private:
  void answer(MessageKind kind, WireReader& question, WireWriter& writer) {
    switch (kind) {
      case MessageKind::kLoad:
        backend_ = factory_(question.text());
        return writer.text(backend_->name());
      case MessageKind::kSupports:
        return writer.text(backend_->unsupported_reason(parse_config_unchecked(question.text())));
      case MessageKind::kArithmetic:
        return writer.arithmetic(backend_->arithmetic(parse_config_unchecked(question.text())));
      case MessageKind::kLayout: {
        const AttentionConfig config = parse_config_unchecked(question.text());
        return writer.layout(taken_layout(*backend_, config, question.layout()));
      }
      case MessageKind::kRun: {
        const auto mode = static_cast<ExecMode>(question.number());
        std::optional<Case> other;
        if (question.number() != 0) other = question.a_case();
        const Case c = question.a_case();
        std::vector<Stage> wanted(question.number());
        for (Stage& stage : wanted) stage = static_cast<Stage>(question.number());
        return writer.trace(execute(*backend_, mode, c, other ? &*other : nullptr, wanted));
      }
      default:
        throw Error(ErrorKind::kInternal, "a worker was asked something else");
    }
  }

  BackendFactory factory_;
  std::unique_ptr<Backend> backend_;
};

}  // namespace

void worker_main(std::uint64_t memory_bytes, BackendFactory factory) {
  confine(memory_bytes);
  install_fault_handler();
  watch_parent();
  Worker worker(std::move(factory));
  FrameHeader header;
  while (read_all(&header, sizeof(header)) && header.magic == kFrameMagic) {
    std::vector<std::byte> data(header.bytes);
    if (!read_all(data.data(), data.size())) break;
    const auto [kind, answer] = worker.answer(header.kind, WireReader(data));
    const FrameHeader reply{kFrameMagic, kind, header.sequence, answer.data().size()};
    if (!write_all(&reply, sizeof(reply)) ||
        !write_all(answer.data().data(), answer.data().size())) {
      break;
    }
  }
  worker = Worker({});  // tells the plug-in; then no destructors of the libraries that it brought
  _exit(0);
}

}  // namespace attn::harness
