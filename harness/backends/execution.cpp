#include "harness/backends/execution.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "harness/backends/backend_failure.h"
#include "reference/core/error.h"

namespace attn::harness {
namespace {

constexpr std::array kAllModes = {ExecMode::kPlain,  ExecMode::kSecondCall, ExecMode::kDirtyScratch,
                                  ExecMode::kRepeat, ExecMode::kGraph,      ExecMode::kGraphReplay,
                                  ExecMode::kPadded};

/// All bits set is a NaN in every floating-point type.
constexpr int kNanByte = 0xff;

void fill_free_blocks() {
  // Allocators keep free blocks by size: several of each, all taken before any is given back.
  constexpr std::size_t kLargest = std::size_t{1} << 20;
  constexpr int kEach = 8;
  std::vector<void*> blocks;
  for (std::size_t size = 16; size <= kLargest; size += std::max<std::size_t>(16, size / 4)) {
    for (int i = 0; i < kEach; ++i) {
      void* const block = std::malloc(size);
      if (block == nullptr) continue;
      std::memset(block, kNanByte, size);
      blocks.push_back(block);
    }
  }
  for (void* block : blocks) {
    asm volatile("" : : "r"(block) : "memory");  // else the compiler may leave out the writes
    std::free(block);
  }
}

[[gnu::noinline]] void fill_stack() {
  std::array<std::byte, std::size_t{256} << 10> room;
  std::memset(room.data(), kNanByte, room.size());
  asm volatile("" : : "r"(room.data()) : "memory");
}

void fill_with_nan(Tensor& t) {
  for (std::int64_t i = 0; i < t.size(); ++i) {
    t.set_value(i, std::numeric_limits<double>::quiet_NaN());
  }
}

Trace run_twice(const Backend& backend, const Case& c, std::span<const Stage> wanted) {
  const Trace first = backend.run(c, wanted);
  Trace second = backend.run(c, wanted);
  if (!backend.arithmetic(c.config).deterministic) return second;
  if (const std::string stage = first_difference(first, second); !stage.empty()) {
    throw BackendFailure(Status::kFailed,
                         stage + " differs between two equal calls; declared: deterministic");
  }
  return second;
}

}  // namespace

std::string_view name_of(ExecMode mode) {
  switch (mode) {
    case ExecMode::kPlain:
      return "plain";
    case ExecMode::kSecondCall:
      return "second_call";
    case ExecMode::kDirtyScratch:
      return "dirty_scratch";
    case ExecMode::kRepeat:
      return "repeat";
    case ExecMode::kGraph:
      return "graph";
    case ExecMode::kGraphReplay:
      return "graph_replay";
    case ExecMode::kPadded:
      return "padded";
  }
  return "";
}

ExecMode dealt_mode(std::uint64_t number) { return kAllModes.at(number % kAllModes.size()); }

std::vector<ExecMode> parse_exec_modes(std::string_view words) {
  std::vector<ExecMode> modes;
  while (true) {
    const std::size_t comma = words.find(',');
    const std::string_view word = words.substr(0, comma);
    const auto mode = std::ranges::find(kAllModes, word, [](ExecMode m) { return name_of(m); });
    if (mode == kAllModes.end()) {
      std::vector<std::string> names;
      for (const ExecMode known : kAllModes) names.emplace_back(name_of(known));
      throw Error(
          ErrorKind::kUsage,
          "--exec: \"" + std::string(word) + "\" is no mode" + hint(std::string(word), names),
          "--exec");
    }
    if (std::ranges::find(modes, *mode) == modes.end()) modes.push_back(*mode);
    if (comma == std::string_view::npos) return modes;
    words.remove_prefix(comma + 1);
  }
}

void dirty_free_memory() {
  fill_free_blocks();
  fill_stack();
}

Case with_nan_inputs(const Case& c) {
  Case nan = c;
  for (Tensor* t : {&nan.x, &nan.q, &nan.cache.k, &nan.cache.v}) {
    if (!t->empty()) fill_with_nan(*t);
  }
  return nan;
}

/// A call whose answer is of no account: of NaN there may come what looks like an element that was
/// never written, since the codes of NaN are many. What crashes or hangs is told all the same.
void run_on_nan(const Backend& backend, const Case& c, std::span<const Stage> wanted) {
  try {
    backend.run(with_nan_inputs(c), wanted);
  } catch (const BackendFailure& failure) {
    if (failure.status() != Status::kFailed) throw;
  }
}

std::string first_difference(const Trace& a, const Trace& b) {
  for (const Stage stage : all_stages()) {
    if (!(a[stage] == b[stage])) return std::string(name_of(stage));
  }
  return "";
}

Trace execute(const Backend& backend, ExecMode mode, const Case& c, const Case* other,
              std::span<const Stage> wanted) {
  if (std::optional<Trace> own = backend.run_as(mode, c, other, wanted)) return std::move(*own);
  if (needs_device(mode)) {
    throw Error(ErrorKind::kUnsupported, std::string("mode ") + std::string(name_of(mode)) +
                                             " is for devices; this backend has none");
  }
  switch (mode) {
    case ExecMode::kSecondCall:
      backend.run(*other, wanted);
      break;
    case ExecMode::kDirtyScratch:
      run_on_nan(backend, c, wanted);
      dirty_free_memory();
      break;
    case ExecMode::kRepeat:
      return run_twice(backend, c, wanted);
    default:
      break;
  }
  return backend.run(c, wanted);
}

}  // namespace attn::harness
