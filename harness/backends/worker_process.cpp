#include "harness/backends/worker_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <iterator>
#include <stdexcept>
#include <utility>

#include "harness/backends/backend_failure.h"
#include "harness/backends/guarded_memory.h"
#include "reference/core/error.h"

namespace attn::harness {
namespace {

constexpr std::size_t kKeptOutput = 4096;
constexpr std::size_t kShownOutput = 300;
constexpr std::uint64_t kLargestAnswer = std::uint64_t{1} << 36;

[[noreturn]] void no_process(const std::string& what) {
  throw Error(ErrorKind::kInternal,
              "no worker process could be started: " + what + ": " + std::strerror(errno));
}

/// Moves a descriptor above those that a worker has by number.
int out_of_the_way(int descriptor) {
  constexpr int kFirstFree = 10;
  const int moved = fcntl(descriptor, F_DUPFD_CLOEXEC, kFirstFree);
  const int cause = errno;
  close(descriptor);
  errno = cause;
  if (moved < 0) no_process("descriptors");
  return moved;
}

/// What posix_spawn does in the child before the program starts.
class SpawnActions {
 public:
  SpawnActions() {
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    sigset_t all, none;
    sigfillset(&all);
    sigemptyset(&none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    posix_spawnattr_setsigmask(&attributes, &none);
    // A group of its own: an interrupt from the terminal is the parent's to handle, and what the
    // worker starts ends with it.
    posix_spawnattr_setpgroup(&attributes, 0);
    posix_spawnattr_setflags(
        &attributes, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETPGROUP);
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  }
  ~SpawnActions() {
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
  }
  SpawnActions(const SpawnActions&) = delete;
  SpawnActions& operator=(const SpawnActions&) = delete;

  void connect(int from, int to) { posix_spawn_file_actions_adddup2(&actions, from, to); }

  posix_spawn_file_actions_t actions{};
  posix_spawnattr_t attributes{};
};

std::string seconds_text(double seconds) {
  std::string text = std::to_string(seconds);
  text.erase(text.find_last_not_of('0') + 1);
  if (text.back() == '.') text.pop_back();
  return text + " s";
}

std::string mebibytes(std::uint64_t bytes) { return std::to_string(bytes >> 20) + " MiB"; }

}  // namespace

std::uint64_t default_worker_memory() {
  const auto pages = static_cast<std::uint64_t>(sysconf(_SC_PHYS_PAGES));
  return pages * static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE)) / 2;
}

WorkerProcess::WorkerProcess(const Isolation& isolation) : isolation_(isolation) {
  if (isolation_.memory_bytes == 0) isolation_.memory_bytes = default_worker_memory();
  try {
    spawn();
  } catch (...) {
    stop();
    throw;
  }
}

WorkerProcess::~WorkerProcess() {
  // Time for the backend's destructor; one that hangs is not waited for.
  constexpr int kGraceMilliseconds = 500;
  if (socket_ >= 0) shutdown(socket_, SHUT_RDWR);
  pollfd ended{process_, POLLIN, 0};
  if (process_ >= 0) poll(&ended, 1, kGraceMilliseconds);
  stop();
}

void WorkerProcess::spawn() {
  int sockets[2] = {-1, -1}, output[2] = {-1, -1};
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) != 0) no_process("socket");
  socket_ = sockets[0];
  const int worker_socket = out_of_the_way(sockets[1]);
  if (pipe2(output, O_CLOEXEC) != 0) no_process("pipe");
  output_ = output[0];
  fcntl(output_, F_SETFL, O_NONBLOCK);
  const int worker_output = out_of_the_way(output[1]);
  const int note = out_of_the_way(memfd_create("attn-worker", MFD_CLOEXEC));
  if (ftruncate(note, sizeof(WorkerNote)) != 0) no_process("memory");
  void* const shared =
      mmap(nullptr, sizeof(WorkerNote), PROT_READ | PROT_WRITE, MAP_SHARED, note, 0);
  if (shared == MAP_FAILED) no_process("memory");
  note_ = static_cast<WorkerNote*>(shared);

  SpawnActions spawn;
  spawn.connect(worker_output, STDOUT_FILENO);
  spawn.connect(worker_output, STDERR_FILENO);
  spawn.connect(worker_socket, kWorkerSocket);
  spawn.connect(note, kWorkerNote);
  const bool is_self = isolation_.command.empty();
  std::vector<std::string> words =
      is_self ? std::vector<std::string>{"attn-compare", kWorkerVerb} : isolation_.command;
  words.push_back(std::to_string(isolation_.memory_bytes));
  const std::string program = is_self ? "/proc/self/exe" : words.front();
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  const int failure = posix_spawnp(&pid_, program.c_str(), &spawn.actions, &spawn.attributes,
                                   arguments.data(), environ);
  for (const int descriptor : {worker_socket, worker_output, note}) close(descriptor);
  if (failure != 0) {
    pid_ = -1;
    errno = failure;
    no_process(program);
  }
  // Without it (an old kernel) a death shows only as the end of the socket.
  process_ = static_cast<int>(syscall(SYS_pidfd_open, pid_, 0));
}

void WorkerProcess::stop() {
  if (pid_ > 0) {
    kill(-pid_, SIGKILL);
    kill(pid_, SIGKILL);  // before it has its own group
    while (waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
    }
    pid_ = -1;
  }
  for (int* descriptor : {&process_, &socket_, &output_}) {
    if (*descriptor >= 0) close(std::exchange(*descriptor, -1));
  }
  if (note_ != nullptr) munmap(std::exchange(note_, nullptr), sizeof(WorkerNote));
}

/// True when everything is sent, or cannot be.
bool WorkerProcess::send(std::vector<std::byte>& unsent, std::size_t& sent) const {
  while (sent < unsent.size()) {
    const ssize_t n =
        ::send(socket_, unsent.data() + sent, unsent.size() - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno != EAGAIN;  // a dead reader is found by its end
    sent += static_cast<std::size_t>(n);
  }
  return true;
}

/// Takes what has arrived; true when the answer is complete. Throws std::runtime_error for what is
/// no answer, or when the stream ends.
bool WorkerProcess::receive(WorkerMessage& message, std::vector<std::byte>& received) const {
  FrameHeader header;
  while (true) {
    std::uint64_t wanted = sizeof(header);
    if (received.size() >= sizeof(header)) {
      std::memcpy(static_cast<void*>(&header), received.data(), sizeof(header));
      if (header.magic != kFrameMagic || header.sequence != sequence_ ||
          header.bytes > kLargestAnswer) {
        throw std::runtime_error("wrote something into its answer");
      }
      wanted += header.bytes;
      if (received.size() == wanted) break;
    }
    // Grows with what arrives: a false size costs no memory.
    constexpr std::uint64_t kChunk = 1 << 20;
    const std::size_t before = received.size();
    received.resize(before + std::min(kChunk, wanted - before));
    const ssize_t n =
        recv(socket_, received.data() + before, received.size() - before, MSG_DONTWAIT);
    received.resize(before + static_cast<std::size_t>(std::max<ssize_t>(n, 0)));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) return false;
    if (n <= 0) throw std::runtime_error(before == 0 ? "" : "stopped in the middle of its answer");
  }
  message.kind = header.kind;
  received.erase(received.begin(), received.begin() + sizeof(header));
  message.data = std::move(received);
  return true;
}

void WorkerProcess::read_output() {
  char buffer[4096];
  while (true) {
    const ssize_t n = read(output_, buffer, sizeof(buffer));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return;
    printed_.append(buffer, static_cast<std::size_t>(n));
    if (printed_.size() > 2 * kKeptOutput) printed_.erase(0, printed_.size() - kKeptOutput);
    if (n < static_cast<ssize_t>(sizeof(buffer))) return;  // others are waiting too
  }
}

void WorkerProcess::wait(bool wants_to_send, Clock::time_point deadline, bool& died) const {
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
  pollfd waiting[] = {{socket_, static_cast<short>(wants_to_send ? POLLIN | POLLOUT : POLLIN), 0},
                      {output_, POLLIN, 0},
                      {process_, POLLIN, 0}};
  poll(waiting, std::size(waiting), static_cast<int>(std::clamp<std::int64_t>(left, 0, 1 << 30)));
  died = waiting[2].revents != 0;
}

WorkerMessage WorkerProcess::ask(MessageKind kind, const std::vector<std::byte>& data) {
  const auto deadline =
      Clock::now() + std::chrono::duration_cast<Clock::duration>(
                         std::chrono::duration<double>(isolation_.timeout_seconds));
  const FrameHeader header{kFrameMagic, kind, ++sequence_, data.size()};
  const auto head = std::as_bytes(std::span<const FrameHeader, 1>(&header, 1));
  std::vector<std::byte> unsent(head.begin(), head.end());
  unsent.insert(unsent.end(), data.begin(), data.end());
  std::size_t sent = 0;
  WorkerMessage answer;
  std::vector<std::byte> received;
  printed_.clear();
  bool is_dead = false;
  while (true) {
    const bool all_sent = send(unsent, sent);
    read_output();
    try {
      if (receive(answer, received)) return answer;
    } catch (const std::runtime_error& error) {
      died(error.what());
    }
    // Checked last: what a dying process sent was read before.
    if (is_dead) died(received.empty() ? "" : "stopped in the middle of its answer");
    if (Clock::now() >= deadline) timed_out();
    wait(!all_sent, deadline, is_dead);
  }
}

std::string WorkerProcess::last_output() const {
  std::string text = printed_;
  while (!text.empty() && static_cast<unsigned char>(text.back()) <= ' ') text.pop_back();
  if (text.size() > kShownOutput) text = "..." + text.substr(text.size() - kShownOutput);
  std::string shown;
  for (const char c : text) {
    const bool plain = static_cast<unsigned char>(c) >= ' ' && c != '\x7f';
    shown += plain ? std::string(1, c) : std::string(c == '\n' ? " | " : "?");
  }
  return shown.empty() ? "" : "; it printed: " + shown;
}

std::string WorkerProcess::obituary() {
  int status = 0;
  rusage usage{};
  while (wait4(pid_, &status, 0, &usage) < 0 && errno == EINTR) {
  }
  kill(-pid_, SIGKILL);  // what it started
  pid_ = -1;
  read_output();
  std::string text;
  if (WIFEXITED(status)) {
    text = "ended its process with exit code " + std::to_string(WEXITSTATUS(status));
  } else {
    const int number = WTERMSIG(status);
    text = "signal " + std::to_string(number) + " (" + strsignal(number) + ")";
  }
  WorkerNote note;
  std::memcpy(static_cast<void*>(&note), note_, sizeof(note));
  note.tensor[sizeof(note.tensor) - 1] = '\0';
  if (note.set == WorkerNote::kSet && note.tensor[0] != '\0') {
    text +=
        ": " + describe_fault({note.tensor, note.offset, note.size, note.width, note.in_hole != 0},
                              note.is_write != 0);
  } else if (note.set == WorkerNote::kSet) {
    char address[32];
    std::snprintf(address, sizeof(address), "0x%llx",
                  static_cast<unsigned long long>(note.address));
    text += std::string(": ") + (note.is_write == 1 ? "wrote to" : "read from") + " address " +
            address + ", which is no tensor's";
  }
  // The kernel counts resident memory in KiB.
  const auto peak = static_cast<std::uint64_t>(usage.ru_maxrss) << 10;
  if (peak > isolation_.memory_bytes / 10 * 9) {
    text += ", out of memory: it used " + mebibytes(peak) + " of the " +
            mebibytes(isolation_.memory_bytes) + " it may (--memory-limit)";
  }
  return text + last_output();
}

void WorkerProcess::died(const std::string& how) {
  // A process that only closed its socket, or that lies, is ended here.
  constexpr int kGraceMilliseconds = 500;
  pollfd ended{process_, POLLIN, 0};
  const bool by_itself = process_ >= 0 && poll(&ended, 1, kGraceMilliseconds) > 0;
  std::string text = how;
  if (by_itself) {
    const std::string end = obituary();
    text += (text.empty() ? "" : ", then ") + end;
  } else {
    if (text.empty()) text = "closed its connection";
    text += last_output();
  }
  stop();
  throw BackendFailure(Status::kCrashed, text);
}

void WorkerProcess::timed_out() {
  const std::string text = "ran for longer than " + seconds_text(isolation_.timeout_seconds) +
                           " (--timeout)" + last_output();
  stop();
  throw BackendFailure(Status::kTimedOut, text);
}

}  // namespace attn::harness
