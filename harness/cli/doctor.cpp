#include <dlfcn.h>
#include <sys/utsname.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <ostream>
#include <set>
#include <sstream>
#include <thread>

#include "golden/build_info.h"
#include "harness/backends/backend.h"
#include "harness/cli/build_info.h"
#include "harness/cli/judge.h"
#include "harness/cli/verbs.h"
#include "harness/generate/case_spec.h"
#include "harness/report/format.h"
#include "harness/report/writers.h"

namespace attn::cli {
namespace {

/// Findings by name, in order of printing.
using Findings = std::vector<std::pair<std::string, std::string>>;

struct Cpu {
  std::string features;
  std::size_t cores = 0;  ///< physical, 0 when the system does not say
};

Cpu read_cpu() {
  Cpu cpu;
  std::ifstream file("/proc/cpuinfo");
  std::set<std::pair<std::string, std::string>> cores;
  std::string package;
  for (std::string line; std::getline(file, line);) {
    const std::size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    const std::string key = line.substr(0, line.find_last_not_of(" \t", colon - 1) + 1);
    const std::string value = colon + 2 <= line.size() ? line.substr(colon + 2) : "";
    if (key == "physical id") package = value;
    if (key == "core id") cores.emplace(package, value);
    if (key != "flags" || !cpu.features.empty()) continue;
    std::istringstream words(value);
    for (std::string word; words >> word;) {
      if (word == "avx2" || word == "fma" || word == "avx512f" || word == "f16c") {
        cpu.features += (cpu.features.empty() ? "" : " ") + word;
      }
    }
  }
  cpu.cores = cores.size();
  return cpu;
}

std::string memory_text() {
  std::ifstream file("/proc/meminfo");
  std::string key;
  double kib = 0;
  while (file >> key >> kib) {
    if (key == "MemTotal:") return harness::format_short(kib / (1024.0 * 1024.0)) + " GiB";
    file.ignore(1000, '\n');
  }
  return "unknown";
}

/// The driver is loaded at run time, so that the same program starts on machines without one.
std::string cuda_text() {
  if (!built_with_cuda()) return "not built in (configure with a CUDA compiler, preset cuda)";
  void* driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (driver == nullptr) return "no driver: libcuda.so.1 cannot be loaded";
  using Init = int (*)(unsigned);
  using GetInt = int (*)(int*);
  using GetName = int (*)(char*, int, int);
  const auto init = reinterpret_cast<Init>(dlsym(driver, "cuInit"));
  const auto version = reinterpret_cast<GetInt>(dlsym(driver, "cuDriverGetVersion"));
  const auto count = reinterpret_cast<GetInt>(dlsym(driver, "cuDeviceGetCount"));
  const auto name = reinterpret_cast<GetName>(dlsym(driver, "cuDeviceGetName"));
  std::string text = "driver found";
  int devices = 0;
  int number = 0;
  if (init == nullptr || version == nullptr || count == nullptr || name == nullptr) {
    text = "libcuda.so.1 lacks the driver's entry points";
  } else if (const int status = init(0); status != 0 || count(&devices) != 0 || devices == 0) {
    text = "driver found, no device (cuInit says " + std::to_string(status) + ")";
  } else {
    char device[256] = "";
    name(device, sizeof device - 1, 0);
    version(&number);
    text = std::to_string(devices) + " device(s), first " + device + ", driver for CUDA " +
           std::to_string(number / 1000) + "." + std::to_string(number % 1000 / 10);
  }
  dlclose(driver);
  return text;
}

/// data/golden beside the working directory, the program's build tree, or its install prefix.
std::string data_folder() {
  std::error_code ignored;
  const auto program = std::filesystem::read_symlink("/proc/self/exe", ignored).parent_path();
  for (const std::filesystem::path& folder :
       {std::filesystem::path("data/golden"), program / "../../../data/golden",
        program / "../share/attn_compare/golden", program / "../share/attn-compare/golden"}) {
    if (!std::filesystem::is_directory(folder, ignored)) continue;
    std::int64_t files = 0;
    for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
      files += entry.path().extension() == ".h5";
    }
    return std::filesystem::weakly_canonical(folder, ignored).string() + ", " +
           std::to_string(files) + " files";
  }
  return "not found (looked for data/golden from here and beside the program)";
}

Findings machine_findings() {
  const golden::BuildInfo& build = golden::build_info();
  const Cpu cpu = read_cpu();
  utsname system = {};
  uname(&system);
  const std::string cores = cpu.cores > 0 ? std::to_string(cpu.cores) + " cores, " : "";
  return {
      {"attn-compare", version() + ", commit " + commit()},
      {"system", std::string(system.sysname) + " " + system.release + ", " + system.machine},
      {"CPU", golden::cpu_model() + (cpu.features.empty() ? "" : " (" + cpu.features + ")")},
      {"threads", cores + std::to_string(std::thread::hardware_concurrency()) + " threads, " +
                      memory_text() + " of memory"},
      {"compiler", build.compiler + "; " + build.build_type + ", " + build.compiler_flags},
      {"libraries", "HDF5 " + build.hdf5 + ", Eigen " + build.eigen},
      {"CUDA", cuda_text()},
      {"golden files", data_folder()},
  };
}

/// Each available backend on one small case: "ready" should mean more than that the program starts.
std::pair<std::string, std::string> check_backend(const harness::BackendInfo& info, const Case& c) {
  const std::string label = "backend " + info.name;
  if (!info.unavailable.empty()) return {label, "not on this machine: " + info.unavailable};
  harness::ReportRow row;
  guarded(row, [&] {
    const auto backend = harness::make_backend(info.name);
    Trace trace;
    row.verdict = run_backend(c, *backend, trace);
    if (row.verdict.status != harness::Status::kPassed) return;
    harness::CompareOptions options;
    options.check_trust = false;
    row.verdict = judge_trace(c, *backend, trace, options, nullptr);
  });
  const std::string state(outcome(row));
  if (state == "passed") return {label, "works: a small case passed"};
  return {label, "broken: a small case " + state + ": " + one_line_reason(row)};
}

/// A plain causal layer with grouped heads, small enough to be judged in milliseconds.
constexpr const char* kSmallCase =
    R"({"config": {"variant": "attention_with_rope", "entry_point": "forward",
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "hidden_size": 64,
        "dtype": "float32", "rope": {"theta": 10000.0},
        "mask": {"variant": "causal"}, "kv_cache": {"page_size": 4}},
        "rows": [[5, 3], [0, 4]]})";

}  // namespace

int doctor(const DoctorOptions& options, const Session& session) {
  check_writable("--json", options.json);
  Findings findings = machine_findings();
  std::size_t working = 0;
  std::string broken;
  const Case c = harness::make_case(harness::parse_case_spec(kSmallCase), 1);
  for (const harness::BackendInfo& info : harness::list_backends()) {
    findings.push_back(check_backend(info, c));
    const std::string& text = findings.back().second;
    working += text.rfind("works", 0) == 0;
    if (text.rfind("broken", 0) == 0) broken += (broken.empty() ? "" : ", ") + info.name;
  }
  const bool ready = working > 0 && broken.empty();
  if (!options.json.empty()) {
    nlohmann::ordered_json json = {{"schema_version", harness::kReportSchemaVersion},
                                   {"verb", "doctor"},
                                   {"ready", ready},
                                   {"findings", nlohmann::ordered_json::object()}};
    for (const auto& [name, text] : findings) json["findings"][name] = text;
    write_output(session, options.json,
                 json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
  }
  std::ostream& out = options.json == "-" ? session.streams.err : session.streams.out;
  constexpr std::size_t kNameWidth = 20;
  for (const auto& [name, text] : findings) {
    std::string line = name;
    line.resize(std::max(line.size() + 2, kNameWidth), ' ');
    out << harness::wrap(line + text, kNameWidth) << "\n";
  }
  out << (ready ? "ready" : "not ready: " + (broken.empty() ? "no backend works" : broken))
      << std::endl;
  return ready ? 0 : 1;
}

}  // namespace attn::cli
