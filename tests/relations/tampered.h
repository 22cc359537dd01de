#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "harness/backends/backend.h"

namespace attn::harness {

/// A backend on a case that was tampered with, its answer tampered with.
class Tampered : public Backend {
 public:
  using OfCase = std::function<void(Case&)>;
  using OfAnswer = std::function<void(const Case&, Trace&)>;

  Tampered(const std::string& backend, OfCase of_case, OfAnswer of_answer = nullptr)
      : inner_(make_backend(backend)),
        of_case_(std::move(of_case)),
        of_answer_(std::move(of_answer)) {}

  std::string name() const override { return "tampered"; }
  std::string unsupported_reason(const AttentionConfig& config) const override {
    return inner_->unsupported_reason(config);
  }
  Arithmetic arithmetic(const AttentionConfig& config) const override {
    return inner_->arithmetic(config);
  }
  Trace run(const Case& c, std::span<const Stage> wanted) const override {
    Case tampered = c;
    if (of_case_) of_case_(tampered);
    Trace trace = inner_->run(tampered, wanted);
    if (of_answer_) of_answer_(c, trace);
    return trace;
  }

 private:
  std::unique_ptr<Backend> inner_;
  OfCase of_case_;
  OfAnswer of_answer_;
};

}  // namespace attn::harness
