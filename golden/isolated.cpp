#include "golden/isolated.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <fstream>

#include "reference/core/error.h"

namespace attn::golden {
namespace {

constexpr int kFailed = 1;
/// Wall time per second of CPU time: a busy machine must not turn a good file into a bad one.
constexpr unsigned kPatience = 30;

std::uint64_t address_space_in_use() {
  std::uint64_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  return pages * static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
}

void set_limit(int resource, std::uint64_t value) {
  rlimit limit{};
  if (getrlimit(resource, &limit) != 0) return;
  limit.rlim_cur = value < limit.rlim_max ? value : limit.rlim_max;
  setrlimit(static_cast<__rlimit_resource>(resource), &limit);
}

/// A crash in here is expected: no handler of the host, no core file, nothing printed.
void confine(const IsolationLimits& limits) {
  for (const int number : {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL, SIGALRM, SIGXCPU, SIGTERM}) {
    std::signal(number, SIG_DFL);
  }
  std::signal(SIGINT, SIG_IGN);  // the parent decides what an interrupt means
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  for (const int descriptor : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (null >= 0) dup2(null, descriptor);
  }
  set_limit(RLIMIT_CORE, 0);
  set_limit(RLIMIT_CPU, limits.cpu_seconds);
  set_limit(RLIMIT_AS, address_space_in_use() + limits.memory_bytes);
  alarm(limits.cpu_seconds * kPatience);
}

[[noreturn]] void run_child(int output, const IsolationLimits& limits,
                            const std::function<void(const Send&)>& work) {
  try {
    confine(limits);
    work([output](const void* data, std::size_t bytes) {
      const char* next = static_cast<const char*>(data);
      while (bytes > 0) {
        const ssize_t written = ::write(output, next, bytes);
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) _exit(kFailed);
        next += written;
        bytes -= static_cast<std::size_t>(written);
      }
    });
    _exit(0);
  } catch (...) {
    _exit(kFailed);
  }
}

}  // namespace

IsolatedProcess::IsolatedProcess(const IsolationLimits& limits,
                                 const std::function<void(const Send&)>& work) {
  int ends[2] = {-1, -1};
  if (pipe2(ends, O_CLOEXEC) == 0) {
    pid_ = fork();
    if (pid_ == 0) {
      close(ends[0]);  // or nobody would be told that the parent stopped reading
      run_child(ends[1], limits, work);
    }
    const int cause = errno;
    output_ = ends[0];
    close(ends[1]);
    errno = cause;
  }
  if (pid_ < 0) {
    const std::string cause = std::strerror(errno);
    if (output_ >= 0) close(output_);
    throw Error(ErrorKind::kInternal, "no process could be started to read a file: " + cause);
  }
}

IsolatedProcess::~IsolatedProcess() { cause_of_death(); }

bool IsolatedProcess::receive(void* data, std::size_t bytes) {
  char* next = static_cast<char*>(data);
  while (bytes > 0) {
    const ssize_t got = ::read(output_, next, bytes);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    next += got;
    bytes -= static_cast<std::size_t>(got);
  }
  return true;
}

std::string IsolatedProcess::cause_of_death() {
  if (pid_ < 0) return "";
  close(output_);  // one that still writes ends by itself
  int status = 0;
  while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  pid_ = -1;
  if (!WIFSIGNALED(status)) return status == 0 ? "" : "failed";
  const int number = WTERMSIG(status);
  if (number == SIGXCPU || number == SIGALRM) return kRanTooLong;
  return "crashed with signal " + std::to_string(number) + " (" + strsignal(number) + ")";
}

}  // namespace attn::golden
