// Compiled into libattn_faulty.so only: the list of switches, the state of a run, and a backend
// that runs with one of them on.

#include "harness/faults/library/faulty_entry.h"

#include <atomic>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "harness/backends/cpu/cpu_backend.h"
#include "harness/backends/cpu/fault_switch.h"

namespace attn::harness {
namespace cpu {
namespace {

/// One backend's run on the calling thread.
struct FaultyRun {
  const FaultSwitch* on = nullptr;
  std::int64_t reached = 0;
  std::int64_t calls_before = 0;
  std::map<std::int64_t, double>* kept = nullptr;
};
thread_local FaultyRun current;

struct Switches {
  std::vector<const FaultSwitch*> list;
  std::vector<std::string_view> ids;
};
Switches& switches() {
  static Switches all;
  return all;
}

std::map<std::string_view, std::atomic<std::int64_t>>& totals() {
  static std::map<std::string_view, std::atomic<std::int64_t>> counts;
  return counts;
}

}  // namespace

FaultSwitch::FaultSwitch(std::string_view fault_id) : id(fault_id) {
  switches().list.push_back(this);
  switches().ids.push_back(id);
  totals()[id] = 0;
}

bool is_switched_on(const FaultSwitch& fault) noexcept { return current.on == &fault; }

bool count_reached() noexcept {
  ++current.reached;
  return true;
}

double kept_value(std::int64_t key, double value) {
  return current.kept == nullptr ? value : current.kept->try_emplace(key, value).first->second;
}

std::int64_t calls_before() noexcept { return current.calls_before; }

// Left-over memory is the stack below what has been in use: the heap has left-overs of the same
// run, poison of the pool among them, and gives none back under a sanitizer. No compiler may know
// that nobody wrote there.
[[gnu::noinline]] void add_zero_times_scratch(float* target, std::int64_t count) {
  constexpr std::size_t kDepth = 4096;  // below the frames of whatever was called before
  float stack[kDepth];
  asm volatile("" : : "r"(stack) : "memory");
  for (std::int64_t i = 0; i < count; ++i) target[i] += 0.0f * stack[i];
}

namespace {

const FaultSwitch* find_switch(std::string_view id) {
  for (const FaultSwitch* fault : switches().list) {
    if (fault->id == id) return fault;
  }
  return nullptr;
}

class FaultyBackend final : public Backend {
 public:
  FaultyBackend(const FaultSwitch* on, std::int64_t block)
      : on_(on), inner_(make_cpu_backend({block, 1})) {}

  std::string name() const override {
    return "faulty:" + std::string(on_ == nullptr ? "none" : on_->id);
  }
  std::string unsupported_reason(const AttentionConfig& config) const override {
    return inner_->unsupported_reason(config);
  }
  Arithmetic arithmetic(const AttentionConfig& config) const override {
    return inner_->arithmetic(config);
  }
  Trace run(const Case& c, std::span<const Stage> wanted) const override {
    const std::lock_guard one_call(mutex_);  // what a bug keeps belongs to one call at a time
    // Devices number their sequences and heads alike: what is kept would be mixed up in one call.
    current = {on_, 0, calls_++, c.config.num_devices == 1 ? &kept_ : nullptr};
    const auto leave = [&] {
      if (on_ != nullptr) totals().at(on_->id) += current.reached;
      current.on = nullptr;
    };
    try {
      Trace trace = inner_->run(c, wanted);
      leave();
      return trace;
    } catch (...) {
      leave();
      throw;
    }
  }

 private:
  const FaultSwitch* on_;
  std::unique_ptr<Backend> inner_;
  mutable std::mutex mutex_;
  mutable std::int64_t calls_ = 0;
  mutable std::map<std::int64_t, double> kept_;
};

}  // namespace
}  // namespace cpu

namespace {

std::span<const std::string_view> ids() { return cpu::switches().ids; }

std::unique_ptr<Backend> make(std::string_view id, std::int64_t block) {
  const cpu::FaultSwitch* const on = cpu::find_switch(id);
  if (on == nullptr && id != "none") return nullptr;
  return std::make_unique<cpu::FaultyBackend>(on, block);
}

std::int64_t reached(std::string_view id) {
  const auto count = cpu::totals().find(id);
  return count == cpu::totals().end() ? 0 : count->second.load();
}

std::int64_t reached_by_last_run() { return cpu::current.reached; }

}  // namespace
}  // namespace attn::harness

extern "C" [[gnu::visibility("default")]] const attn::harness::FaultyEntry* attn_faulty_entry() {
  static const attn::harness::FaultyEntry entry{
      attn::harness::FaultyEntry::kLayout, attn::harness::ids, attn::harness::make,
      attn::harness::reached, attn::harness::reached_by_last_run};
  return &entry;
}
