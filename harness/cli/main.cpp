#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <iostream>
#include <string_view>

#include "harness/backends/backend.h"
#include "harness/backends/worker.h"
#include "harness/cli/heap.h"
#include "harness/cli/program.h"

namespace {

/// This program as a worker of itself; nobody types that, and it needs the parent's socket.
bool is_worker(int argc, char** argv) {
  struct stat socket {};
  return argc == 3 && std::string_view(argv[1]) == attn::harness::kWorkerVerb &&
         fstat(attn::harness::kWorkerSocket, &socket) == 0 && S_ISSOCK(socket.st_mode);
}

}  // namespace

int main(int argc, char** argv) {
  attn::cli::keep_freed_memory();
  if (is_worker(argc, argv)) {
    attn::harness::worker_main(std::strtoull(argv[2], nullptr, 10), attn::harness::make_backend);
  }
  const std::vector<std::string> args(argv + 1, argv + argc);
  return attn::cli::run_program(
      args, {std::cout, std::cerr, ::isatty(STDOUT_FILENO) != 0, ::isatty(STDERR_FILENO) != 0});
}
