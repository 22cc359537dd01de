#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "harness/compare/arithmetic.h"
#include "reference/core/case.h"
#include "reference/core/trace.h"

namespace attn::harness {

/// What a worker is asked, and what it answers. Both ends are the same program, so numbers travel
/// as they lie in memory; what a worker sends is checked as if it were hostile, because a plug-in
/// may have written it.
enum class MessageKind : std::uint32_t {
  kLoad = 1,    ///< spec -> name
  kSupports,    ///< config -> reason
  kArithmetic,  ///< config -> arithmetic
  kLayout,      ///< config, layout -> layout as far as it is taken
  kRun,         ///< mode, other case or none, case, wanted stages -> trace
  kAnswer,      ///< the answer asked for
  kError,       ///< attn::Error: kind, message, field, rule
  kFailure,     ///< BackendFailure: status, message
  kException,   ///< another exception: message
};

/// Precedes every message.
struct FrameHeader {
  std::uint64_t magic = 0;
  MessageKind kind{};
  std::uint32_t sequence = 0;  ///< of the question; its answer has the same
  std::uint64_t bytes = 0;     ///< that follow
};
inline constexpr std::uint64_t kFrameMagic = 0x6b726f776e747461;  // "attnwork"

/// Appends values to a message.
class WireWriter {
 public:
  void bytes(std::span<const std::byte> data);
  void number(std::uint64_t value);
  void text(std::string_view value);
  void tensor(const Tensor& value);
  void cache(const KvCache& value);
  void arithmetic(const Arithmetic& value);
  void layout(const MemoryLayout& value);
  void a_case(const Case& value);
  void trace(const Trace& value);

  const std::vector<std::byte>& data() const { return data_; }

 private:
  std::vector<std::byte> data_;
};

/// Reads them back in the same order. Throws std::runtime_error when the message is not what it
/// should be.
class WireReader {
 public:
  explicit WireReader(std::span<const std::byte> data) : rest_(data) {}

  std::uint64_t number();
  std::string text();
  Tensor tensor();
  KvCache cache();
  Arithmetic arithmetic();
  MemoryLayout layout();
  Case a_case();
  Trace trace();
  /// Throws unless everything was read.
  void end() const;

 private:
  std::span<const std::byte> take(std::uint64_t size);

  std::span<const std::byte> rest_;
};

}  // namespace attn::harness
