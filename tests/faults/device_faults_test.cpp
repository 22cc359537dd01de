// The planted bugs of the CUDA path, as far as that can be told without a device: each has its
// switch in the sources and its entry in a catalogue, and ordinary libraries have none of them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <sstream>
#include <string>

#include "gpu/faults/fault_list.h"
#include "harness/faults/device_run.h"
#include "harness/faults/faulty_library.h"
#include "reference/core/error.h"

namespace attn::harness {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::Not;

#define ATTN_NAME(id) std::string_view(#id),
constexpr std::array kSwitches{ATTN_GPU_FAULTS(ATTN_NAME)};
#undef ATTN_NAME

std::string read(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

/// Everything that the library of planted bugs is compiled from.
std::string sources() {
  std::string text;
  for (const char* folder : {"gpu/kernels", "gpu/layers", "harness/backends/cuda"}) {
    for (const auto& entry : fs::directory_iterator(fs::path(ATTN_SOURCE_DIR) / folder)) {
      text += read(entry.path());
    }
  }
  return text;
}

bool lives_in_a_mode(Detector detector) {
  return detector == Detector::kSecondCall || detector == Detector::kRepeat ||
         detector == Detector::kScratch || detector == Detector::kGraph ||
         detector == Detector::kGraphReplay || detector == Detector::kPadding;
}

TEST(DeviceFaults, AreEachSwitchedSomewhereAndDescribed) {
  const std::string text = sources();
  std::set<std::string_view> seen;
  std::int64_t in_a_mode = 0;
  for (const std::string_view id : kSwitches) {
    EXPECT_TRUE(seen.insert(id).second) << id << " is listed twice";
    const std::string name(id);
    EXPECT_TRUE(text.find("ATTN_FAULT(" + name + ")") != std::string::npos ||
                text.find("ATTN_FAULT(" + name + ",") != std::string::npos ||
                text.find("ATTN_IF_FAULT(" + name + ",") != std::string::npos)
        << id << " has no switch";
    const FaultInfo& fault = find_device_fault(id);
    EXPECT_FALSE(fault.trigger.empty()) << id;
    EXPECT_LT(fault.summary.size(), 72U) << id;
    EXPECT_TRUE(fault.equivalent_because.empty()) << id << " is a control";
    in_a_mode += lives_in_a_mode(fault.detector) ? 1 : 0;
  }
  EXPECT_GE(kSwitches.size(), 60U);
  EXPECT_GE(in_a_mode, 8);
  for (const FaultInfo& fault : device_faults()) {
    EXPECT_TRUE(seen.contains(fault.id)) << fault.id << " has no switch";
  }
}

TEST(DeviceFaults, AreInNoOrdinaryLibrary) {
  std::istringstream files(ATTN_ORDINARY_FILES);
  for (std::string file; std::getline(files, file, ':');) {
    const std::string bytes = read(file);
    EXPECT_GT(bytes.size(), 1000U) << file;
    EXPECT_THAT(bytes, Not(HasSubstr("attn-fault:"))) << file;
    EXPECT_THAT(bytes, Not(HasSubstr("attn_fault_on"))) << file;
    EXPECT_THAT(bytes, Not(HasSubstr("host_fault_state"))) << file;
  }
}

TEST(DeviceFaults, SayWhatIsMissing) {
  try {
    DeviceFaultOptions options;
    options.plan.gate = Gate::kSmoke;
    options.only = {"no_such_bug"};
    run_device_faults(options);
    FAIL() << "ran";
  } catch (const Error& error) {
    // Where the library was built the id is refused, elsewhere its absence.
    EXPECT_EQ(error.kind(), ErrorKind::kUsage);
    EXPECT_THAT(error.what(),
                testing::AnyOf(HasSubstr("no_such_bug"), HasSubstr("attn_faulty_cuda")));
  }
}

}  // namespace
}  // namespace attn::harness
