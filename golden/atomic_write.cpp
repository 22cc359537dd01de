#include "golden/atomic_write.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "golden/raw_file.h"
#include "reference/core/error.h"

namespace attn::golden {
namespace {

[[noreturn]] void fail(const std::string& path, const std::string& what) {
  throw Error(ErrorKind::kUsage, printable(path) + ": " + what);
}

/// Holds back the signals that would end the process between the birth and the renaming of the
/// temporary file.
class SignalsHeld {
 public:
  SignalsHeld() {
    sigset_t held;
    sigemptyset(&held);
    for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT}) sigaddset(&held, number);
    pthread_sigmask(SIG_BLOCK, &held, &before_);
  }
  ~SignalsHeld() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalsHeld(const SignalsHeld&) = delete;
  SignalsHeld& operator=(const SignalsHeld&) = delete;

 private:
  sigset_t before_{};
};

/// The temporary file; removed unless it was renamed.
class TemporaryFile {
 public:
  explicit TemporaryFile(const std::filesystem::path& target) {
    std::string name = ".";
    name += target.filename().string() + ".tmp." + std::to_string(getpid());
    path_ = (target.parent_path() / name).string();
    ::unlink(path_.c_str());  // left by a process of the same number that was killed
    descriptor_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (descriptor_ < 0) fail(target.string(), cause("cannot be written"));
  }
  ~TemporaryFile() {
    ::close(descriptor_);
    if (!renamed_) ::unlink(path_.c_str());
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;

  const std::string& path() const { return path_; }

  void sync(const std::string& target) {
    if (::fsync(descriptor_) != 0) fail(target, cause("cannot be written"));
  }

  void rename_to(const std::string& target, bool force) {
    int result = ::renameat2(AT_FDCWD, path_.c_str(), AT_FDCWD, target.c_str(),
                             force ? 0 : RENAME_NOREPLACE);
    if (result != 0 && !force && (errno == EINVAL || errno == ENOSYS)) {
      // A file system that cannot refuse by itself.
      if (::access(target.c_str(), F_OK) == 0) {
        errno = EEXIST;
      } else {
        result = ::rename(path_.c_str(), target.c_str());
      }
    }
    if (result != 0) {
      if (errno == EEXIST) fail(target, "exists; --force overwrites it");
      fail(target, cause("cannot be written"));
    }
    renamed_ = true;
  }

 private:
  static std::string cause(const std::string& what) { return what + ": " + std::strerror(errno); }

  std::string path_;
  int descriptor_ = -1;
  bool renamed_ = false;
};

void sync_folder(const std::filesystem::path& folder) {
  const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return;
  ::fsync(descriptor);  // not every file system can; the content itself is safe
  ::close(descriptor);
}

}  // namespace

void write_atomically(const std::string& path, bool force, const FileStep& produce,
                      const FileStep& verify) {
  const std::filesystem::path target(path);
  std::error_code ignored;
  if (!force && std::filesystem::exists(target, ignored)) {
    fail(path, "exists; --force overwrites it");
  }
  const SignalsHeld held;
  TemporaryFile temporary(target);
  produce(temporary.path());
  temporary.sync(path);
  verify(temporary.path());
  temporary.rename_to(path, force);
  sync_folder(target.has_parent_path() ? target.parent_path() : std::filesystem::path("."));
}

}  // namespace attn::golden
