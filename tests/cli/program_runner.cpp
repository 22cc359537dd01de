#include "tests/cli/program_runner.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <thread>

#include "golden/golden_file.h"

namespace attn::test {
namespace {

[[noreturn]] void become(const std::vector<std::string>& words, const How& how,
                         const std::string& out, const std::string& err) {
  // The tests' own terminal settings must not colour what is compared.
  for (const char* name : {"NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE"}) unsetenv(name);
  for (const auto& [name, value] : how.environment) setenv(name.c_str(), value.c_str(), 1);
  const int out_file = open(out.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  const int err_file = open(err.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  dup2(out_file, STDOUT_FILENO);
  dup2(err_file, STDERR_FILENO);
  std::vector<char*> argv;
  for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  if (chdir(ATTN_SOURCE_DIR) == 0) execv(argv[0], argv.data());
  _exit(127);
}

Outcome execute(const std::vector<std::string>& words, const How& how) {
  const ScratchFolder folder;
  const pid_t child = fork();
  if (child == 0) become(words, how, folder / "out", folder / "err");
  const auto& when = how.kill_when ? how.kill_when : how.interrupt_when;
  int status = 0;
  while (when && waitpid(child, &status, WNOHANG) == 0) {
    if (when()) {
      kill(child, how.kill_when ? SIGKILL : SIGINT);
      break;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  // Where the loop above has reaped the child, this returns at once and leaves the status.
  waitpid(child, &status, 0);
  return {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status),
          read_file(folder / "out"), read_file(folder / "err")};
}

}  // namespace

Outcome attn_compare(const std::vector<std::string>& args, const How& how) {
  std::vector<std::string> words = {ATTN_COMPARE};
  words.insert(words.end(), args.begin(), args.end());
  return execute(words, how);
}

Outcome shell(const std::string& line) {
  const std::string folder = std::filesystem::path(ATTN_COMPARE).parent_path().string();
  return execute({"/bin/sh", "-c", "PATH='" + folder + "':$PATH; " + line}, {});
}

std::function<bool()> written(const std::filesystem::path& path, int times) {
  return [path, times, last = std::filesystem::file_time_type::min(), seen = -1]() mutable {
    std::error_code missing;
    const auto time = std::filesystem::last_write_time(path, missing);
    if (!missing && time != last) {
      last = time;
      ++seen;
    }
    return seen >= times;
  };
}

std::function<bool()> has_lines(const std::filesystem::path& path, std::ptrdiff_t lines) {
  return [path, lines] {
    const std::string text = read_file(path);
    return std::count(text.begin(), text.end(), '\n') >= lines;
  };
}

std::string last_line(const std::string& text) {
  const std::size_t end = text.find_last_not_of('\n');
  if (end == std::string::npos) return "";
  const std::size_t begin = text.rfind('\n', end);
  return text.substr(begin == std::string::npos ? 0 : begin + 1,
                     end - (begin == std::string::npos ? 0 : begin + 1) + 1);
}

std::string read_file(const std::filesystem::path& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

void write_file(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

std::string golden(const std::string& name) {
  return std::string(ATTN_SOURCE_DIR) + "/data/golden/" + name + ".h5";
}

ScratchFolder::ScratchFolder() {
  std::string name = (std::filesystem::temp_directory_path() / "attn-cli-XXXXXX").string();
  if (mkdtemp(name.data()) == nullptr) std::abort();
  path_ = name;
}

ScratchFolder::~ScratchFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

void write_damaged_copy(const std::string& from, const std::string& to, const std::string& dataset,
                        double relative) {
  golden::GoldenFile file = golden::read(from);
  Tensor& tensor = file.datasets.at(dataset);
  double largest = 0.0;
  for (const double value : tensor.values()) {
    if (std::isfinite(value)) largest = std::max(largest, std::abs(value));
  }
  tensor.set_value(0, tensor.value(0) + relative * largest);
  file.seal = golden::Seal::kSealed;
  golden::write(file, to, true);
}

}  // namespace attn::test
