#include <unistd.h>

#include <iostream>

#include "harness/cli/heap.h"
#include "harness/cli/program.h"

int main(int argc, char** argv) {
  attn::cli::keep_freed_memory();
  const std::vector<std::string> args(argv + 1, argv + argc);
  return attn::cli::run_program(
      args, {std::cout, std::cerr, ::isatty(STDOUT_FILENO) != 0, ::isatty(STDERR_FILENO) != 0});
}
