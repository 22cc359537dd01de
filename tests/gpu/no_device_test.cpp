// The program on a machine without a GPU or a driver: it starts, says what is missing, and refuses
// the backend in one line.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "harness/backends/backend.h"
#include "harness/backends/cuda_backend.h"
#include "reference/core/error.h"
#include "tests/cli/program_runner.h"

namespace attn::harness {
namespace {

using testing::AnyOf;
using testing::HasSubstr;

class NoDevice : public testing::Test {
 protected:
  void SetUp() override {
    if (cuda_unavailable_reason().empty()) GTEST_SKIP() << "there is a device";
  }
};

TEST_F(NoDevice, IsSaidWithItsReason) {
  EXPECT_THAT(cuda_unavailable_reason(),
              AnyOf(HasSubstr("no driver"), HasSubstr("no device"), HasSubstr("not built in")));
  EXPECT_EQ(cuda_device_name(), "");
  try {
    make_backend("cuda");
    FAIL() << "made";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUnsupported);
    EXPECT_THAT(error.what(), HasSubstr(cuda_unavailable_reason()));
  }
}

TEST_F(NoDevice, TheProgramStartsAndSaysSo) {
  const auto doctor = test::attn_compare({"doctor"});
  EXPECT_EQ(doctor.code, 0) << doctor.err;
  EXPECT_THAT(doctor.out, HasSubstr("backend cuda        not on this machine: "));
  EXPECT_THAT(doctor.out, HasSubstr("ready"));
  const auto fuzz = test::attn_compare({"fuzz", "--backend", "cuda", "--cases", "1"});
  EXPECT_NE(fuzz.code, 0);
  EXPECT_THAT(fuzz.err, HasSubstr("cuda: "));
}

}  // namespace
}  // namespace attn::harness
