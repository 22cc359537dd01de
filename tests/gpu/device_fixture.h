#pragma once

#include <gtest/gtest.h>

#include "harness/backends/cuda_backend.h"

namespace attn::harness {

/// Skips, or fails where a device is required, when the CUDA layers cannot run here.
class OnDevice : public testing::Test {
 protected:
  void SetUp() override {
    const std::string& reason = cuda_unavailable_reason();
    if (reason.empty()) return;
    if (ATTN_REQUIRE_GPU) FAIL() << "a GPU is required: " << reason;
    GTEST_SKIP() << "NOT TESTED, this needs a GPU: " << reason;
  }
};

}  // namespace attn::harness
