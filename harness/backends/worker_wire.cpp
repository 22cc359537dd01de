#include "harness/backends/worker_wire.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <type_traits>

namespace attn::harness {
namespace {

// More axes than any tensor of a case has.
constexpr std::uint64_t kMostAxes = 8;
constexpr std::uint64_t kMostWeights = 1024;

[[noreturn]] void malformed() { throw std::runtime_error("a message is not as it should be"); }

}  // namespace

void WireWriter::bytes(std::span<const std::byte> data) {
  data_.insert(data_.end(), data.begin(), data.end());
}

void WireWriter::number(std::uint64_t value) {
  bytes(std::as_bytes(std::span<const std::uint64_t, 1>(&value, 1)));
}

void WireWriter::text(std::string_view value) {
  number(value.size());
  bytes(std::as_bytes(std::span(value)));
}

void WireWriter::tensor(const Tensor& value) {
  number(value.empty() ? 0 : 1);
  if (value.empty()) return;
  number(static_cast<std::uint64_t>(value.type()));
  number(value.shape().size());
  for (const std::int64_t n : value.shape()) number(static_cast<std::uint64_t>(n));
  number(value.bytes().size());
  bytes(value.bytes());
}

void WireWriter::cache(const KvCache& value) {
  for (const std::int64_t n : {value.page_size, value.num_layers, value.layer}) {
    number(static_cast<std::uint64_t>(n));
  }
  for (const Tensor* t : {&value.k, &value.v, &value.k_scale, &value.v_scale, &value.page_table}) {
    tensor(*t);
  }
}

void WireWriter::arithmetic(const Arithmetic& value) {
  static_assert(std::is_trivially_copyable_v<Arithmetic>);
  number(sizeof(value));
  bytes(std::as_bytes(std::span<const Arithmetic, 1>(&value, 1)));
}

void WireWriter::layout(const MemoryLayout& value) {
  static_assert(std::is_trivially_copyable_v<MemoryLayout>);
  bytes(std::as_bytes(std::span<const MemoryLayout, 1>(&value, 1)));
}

void WireWriter::a_case(const Case& value) {
  text(value.id);
  text(to_json(value.config));
  number(value.weights.size());
  for (const auto& [name, weight] : value.weights) {
    text(name);
    tensor(weight);
  }
  for (const Tensor* t : {&value.x, &value.q, &value.input_row_offsets, &value.cache_lengths,
                          &value.freqs_cis, &value.mask}) {
    tensor(*t);
  }
  cache(value.cache);
  layout(value.layout);
  text(value.repro);
}

void WireWriter::trace(const Trace& value) {
  for (const Stage stage : all_stages()) {
    tensor(value[stage]);
    number(value.is_given(stage) ? 1 : 0);
  }
  number(value.cache ? 1 : 0);
  if (value.cache) cache(*value.cache);
}

std::span<const std::byte> WireReader::take(std::uint64_t size) {
  if (size > rest_.size()) malformed();
  const auto taken = rest_.first(static_cast<std::size_t>(size));
  rest_ = rest_.subspan(taken.size());
  return taken;
}

std::uint64_t WireReader::number() {
  std::uint64_t value = 0;
  std::memcpy(&value, take(sizeof(value)).data(), sizeof(value));
  return value;
}

std::string WireReader::text() {
  const auto taken = take(number());
  return {reinterpret_cast<const char*>(taken.data()), taken.size()};
}

Tensor WireReader::tensor() {
  if (number() == 0) return {};
  const std::uint64_t type = number();
  const std::uint64_t axes = number();
  if (type > static_cast<std::uint64_t>(ElementType::kUInt8) || axes > kMostAxes) malformed();
  // Compared before anything is allocated: a wrong shape must not cost memory.
  const auto element = static_cast<ElementType>(type);
  Shape shape;
  std::uint64_t size = element_size(element);
  for (std::uint64_t i = 0; i < axes; ++i) {
    const std::uint64_t n = number();
    std::uint64_t product = 0;
    if (n > INT64_MAX || __builtin_mul_overflow(size, n, &product)) malformed();
    size = product;
    shape.push_back(static_cast<std::int64_t>(n));
  }
  if (number() != size) malformed();
  const auto data = take(size);
  Tensor tensor(element, std::move(shape));
  std::ranges::copy(data, tensor.data());
  return tensor;
}

KvCache WireReader::cache() {
  KvCache value;
  for (std::int64_t* n : {&value.page_size, &value.num_layers, &value.layer}) {
    *n = static_cast<std::int64_t>(number());
  }
  for (Tensor* t : {&value.k, &value.v, &value.k_scale, &value.v_scale, &value.page_table}) {
    *t = tensor();
  }
  return value;
}

Arithmetic WireReader::arithmetic() {
  if (number() != sizeof(Arithmetic)) malformed();
  Arithmetic value;
  std::memcpy(static_cast<void*>(&value), take(sizeof(value)).data(), sizeof(value));
  return value;
}

MemoryLayout WireReader::layout() {
  MemoryLayout value;
  std::memcpy(static_cast<void*>(&value), take(sizeof(value)).data(), sizeof(value));
  return value;
}

Case WireReader::a_case() {
  Case value;
  value.id = text();
  value.config = parse_config_unchecked(text());
  const std::uint64_t weights = number();
  if (weights > kMostWeights) malformed();
  for (std::uint64_t i = 0; i < weights; ++i) {
    std::string name = text();
    value.weights[std::move(name)] = tensor();
  }
  for (Tensor* t : {&value.x, &value.q, &value.input_row_offsets, &value.cache_lengths,
                    &value.freqs_cis, &value.mask}) {
    *t = tensor();
  }
  value.cache = cache();
  value.layout = layout();
  value.repro = text();
  return value;
}

Trace WireReader::trace() {
  Trace value;
  for (const Stage stage : all_stages()) {
    value[stage] = tensor();
    if (number() != 0) value.give(stage);
  }
  if (number() != 0) value.cache = cache();
  return value;
}

void WireReader::end() const {
  if (!rest_.empty()) malformed();
}

}  // namespace attn::harness
