#include <exception>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <utility>
#include <vector>

#include "harness/backends/backend_failure.h"
#include "harness/backends/layout_taker.h"
#include "harness/backends/python_backend.h"
#include "harness/backends/worker.h"
#include "reference/core/error.h"

namespace attn::harness {
namespace {

constexpr char kNoAnswer[] = "wrote something into its answer";

/// Throws what the worker threw.
[[noreturn]] void rethrow(MessageKind kind, WireReader& reader) {
  if (kind == MessageKind::kError) {
    const auto error_kind = static_cast<ErrorKind>(reader.number());
    const std::string message = reader.text(), field = reader.text(), rule = reader.text();
    throw Error(error_kind, message, field, rule);
  }
  if (kind == MessageKind::kFailure) {
    const auto status = static_cast<Status>(reader.number());
    throw BackendFailure(status, reader.text());
  }
  if (kind == MessageKind::kException) {
    throw BackendFailure(Status::kCrashed, "threw an exception: " + reader.text());
  }
  throw BackendFailure(Status::kCrashed, kNoAnswer);
}

class IsolatedBackend final : public Backend, public LayoutTaker {
 public:
  IsolatedBackend(std::string spec, const Isolation& isolation)
      : spec_(std::move(spec)), isolation_(isolation) {
    try {
      idle_.push_back(start(&name_));
    } catch (const BackendFailure&) {
      broken_ = std::current_exception();
    }
  }

  std::string name() const override { return name_.empty() ? spec_ : name_; }

  std::string unsupported_reason(const AttentionConfig& config) const override {
    const std::vector<std::byte> answer = ask(MessageKind::kSupports, of_config(config));
    return read_whole(answer, &WireReader::text);
  }

  Arithmetic arithmetic(const AttentionConfig& config) const override {
    const std::vector<std::byte> answer = ask(MessageKind::kArithmetic, of_config(config));
    return read_whole(answer, &WireReader::arithmetic);
  }

  MemoryLayout taken(const AttentionConfig& config, const MemoryLayout& wanted) const override {
    WireWriter question = of_config(config);
    question.layout(wanted);
    const std::vector<std::byte> answer = ask(MessageKind::kLayout, question);
    return read_whole(answer, &WireReader::layout);
  }

  Trace run(const Case& c, std::span<const Stage> wanted) const override {
    return *run_as(ExecMode::kPlain, c, nullptr, wanted);
  }

  /// The worker arranges the mode, so that all calls of it are in one process.
  std::optional<Trace> run_as(ExecMode mode, const Case& c, const Case* other,
                              std::span<const Stage> wanted) const override {
    WireWriter question;
    question.number(static_cast<std::uint64_t>(mode));
    question.number(other == nullptr ? 0 : 1);
    if (other != nullptr) question.a_case(*other);
    question.a_case(c);
    question.number(wanted.size());
    for (const Stage stage : wanted) question.number(static_cast<std::uint64_t>(stage));
    const std::vector<std::byte> answer = ask(MessageKind::kRun, question);
    return read_whole(answer, &WireReader::trace);
  }

 private:
  static WireWriter of_config(const AttentionConfig& config) {
    WireWriter question;
    question.text(to_json(config));
    return question;
  }

  /// The answer to one question, from a worker that no other thread uses meanwhile.
  std::vector<std::byte> ask(MessageKind kind, const WireWriter& question) const {
    if (broken_) std::rethrow_exception(broken_);
    std::unique_ptr<WorkerProcess> worker = acquire();
    WorkerMessage answer = worker->ask(kind, question.data());
    {  // Only now: one that died is not used again.
      const std::scoped_lock lock(mutex_);
      idle_.push_back(std::move(worker));
    }
    WireReader reader(answer.data);
    if (answer.kind != MessageKind::kAnswer) rethrow(answer.kind, reader);
    return std::move(answer.data);
  }

  template <typename Value>
  static Value read_whole(const std::vector<std::byte>& answer, Value (WireReader::*read)()) {
    try {
      WireReader reader(answer);
      Value value = (reader.*read)();
      reader.end();
      return value;
    } catch (const std::runtime_error&) {
      throw BackendFailure(Status::kCrashed, kNoAnswer);
    }
  }

  std::unique_ptr<WorkerProcess> acquire() const {
    {
      const std::scoped_lock lock(mutex_);
      if (!idle_.empty()) {
        std::unique_ptr<WorkerProcess> worker = std::move(idle_.back());
        idle_.pop_back();
        return worker;
      }
    }
    return start(nullptr);
  }

  /// A worker with the backend loaded, and what that calls itself. Only the first says its name:
  /// other threads read it by the time that more are started.
  std::unique_ptr<WorkerProcess> start(std::string* name) const {
    auto worker = std::make_unique<WorkerProcess>(isolation_);
    WireWriter question;
    question.text(spec_);
    try {
      const WorkerMessage answer = worker->ask(MessageKind::kLoad, question.data());
      WireReader reader(answer.data);
      if (answer.kind != MessageKind::kAnswer) rethrow(answer.kind, reader);
      if (name != nullptr) *name = reader.text();
    } catch (const BackendFailure& failure) {
      throw BackendFailure(failure.status(), std::string("while it was loaded: ") + failure.what());
    }
    return worker;
  }

  const std::string spec_;
  const Isolation isolation_;
  std::exception_ptr broken_;  ///< why it could not be loaded
  mutable std::mutex mutex_;
  mutable std::vector<std::unique_ptr<WorkerProcess>> idle_;
  std::string name_;
};

}  // namespace

std::unique_ptr<Backend> make_isolated_backend(const std::string& spec,
                                               const Isolation& isolation) {
  Isolation started = isolation;
  if (is_python_spec(spec)) {
    split_python_spec(spec);  // what is wrong with it is said before anything is started
    started.command = python_worker_command();
  }
  return std::make_unique<IsolatedBackend>(spec, started);
}

}  // namespace attn::harness
