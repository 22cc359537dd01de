#pragma once

#include <stdexcept>
#include <string>

#include "harness/compare/compare.h"

namespace attn::harness {

/// A backend that broke on a case, as opposed to one that computed something wrong: it crashed, it
/// ran out of time, or it touched memory that is not its own (kFailed). The message is one line.
class BackendFailure : public std::runtime_error {
 public:
  BackendFailure(Status status, const std::string& message)
      : std::runtime_error(message), status_(status) {}
  Status status() const { return status_; }

 private:
  Status status_;
};

}  // namespace attn::harness
