#include <memory>
#include <new>
#include <vector>

#include "golden/hdf5_handle.h"
#include "golden/isolated.h"
#include "golden/raw_file.h"
#include "reference/core/error.h"

namespace attn::golden {
namespace {

/// Generous: a megabyte reads in a millisecond.
constexpr unsigned kBaseSeconds = 2;
constexpr std::uint64_t kBytesPerSecond = std::uint64_t{20} << 20;
/// The library's own buffers and caches.
constexpr std::uint64_t kBaseMemory = std::uint64_t{128} << 20;

/// First byte of the stream.
enum class Outcome : char { kFile, kError };

/// The reading process met one of its limits of time.
struct TimedOut : Error {
  using Error::Error;
};

/// Writes values to the parent, sizes first.
class Sender {
 public:
  explicit Sender(const Send& send) : send_(send) {}
  template <typename T>
  void value(T v) {
    send_(&v, sizeof v);
  }
  void text(const std::string& s) {
    value<std::uint64_t>(s.size());
    send_(s.data(), s.size());
  }
  void tensor(const Tensor& t) {
    text(std::string(element_name(t.type())));
    value<std::uint64_t>(t.shape().size());
    for (const std::int64_t dim : t.shape()) value(dim);
    send_(t.data(), t.bytes().size());
  }

 private:
  const Send& send_;
};

/// Reads them back. What the other side says is believed no more than the file is.
class Receiver {
 public:
  Receiver(IsolatedProcess& process, const std::string& path, std::uint64_t budget)
      : process_(process), path_(path), budget_(budget) {}

  template <typename T>
  T value() {
    T v{};
    fill(&v, sizeof v);
    return v;
  }
  std::string text() {
    std::string s(spend(value<std::uint64_t>()), '\0');
    fill(s.data(), s.size());
    return s;
  }
  Tensor tensor() {
    const ElementType type = parse_element_type(text());
    Shape shape(spend(value<std::uint64_t>()));
    for (std::int64_t& dim : shape) dim = value<std::int64_t>();
    std::uint64_t bytes = element_size(type);
    if (__builtin_mul_overflow(bytes, static_cast<std::uint64_t>(num_elements(shape)), &bytes)) {
      died();
    }
    spend(bytes);
    Tensor t(type, shape);
    fill(t.data(), t.bytes().size());
    return t;
  }
  [[noreturn]] void died() {
    const std::string cause = process_.cause_of_death();
    const std::string message = printable(path_) + ": the HDF5 library " +
                                (cause.empty() ? "failed" : cause) + " on it; the file is damaged";
    if (cause == kRanTooLong) throw TimedOut(ErrorKind::kInput, message);
    throw Error(ErrorKind::kInput, message);
  }

 private:
  void fill(void* data, std::size_t bytes) {
    if (!process_.receive(data, bytes)) died();
  }
  std::size_t spend(std::uint64_t bytes) {
    if (bytes > budget_) died();
    budget_ -= bytes;
    return bytes;
  }

  IsolatedProcess& process_;
  const std::string& path_;
  std::uint64_t budget_;
};

void send_file(Sender& sender, const RawFile& file) {
  sender.value(Outcome::kFile);
  for (const std::string* s :
       {&file.case_id, &file.config, &file.provenance, &file.content_sha256}) {
    sender.text(*s);
  }
  sender.value<std::uint64_t>(file.datasets.size());
  for (const auto& [path, dataset] : file.datasets) {
    for (const std::string* s : {&path, &dataset.sha256, &dataset.problem}) sender.text(*s);
    if (dataset.problem.empty()) sender.tensor(dataset.tensor);
  }
}

RawFile receive_file(Receiver& receiver) {
  RawFile file;
  for (std::string* s : {&file.case_id, &file.config, &file.provenance, &file.content_sha256}) {
    *s = receiver.text();
  }
  const auto count = receiver.value<std::uint64_t>();
  for (std::uint64_t i = 0; i < count; ++i) {
    RawDataset& dataset = file.datasets[receiver.text()];
    dataset.sha256 = receiver.text();
    dataset.problem = receiver.text();
    if (dataset.problem.empty()) dataset.tensor = receiver.tensor();
  }
  return file;
}

void parse_and_send(const std::string& path, std::uint64_t file_bytes, const Send& send) {
  Sender sender(send);
  std::string message;
  std::string field;
  try {
    send_file(sender, parse_hdf5(path, file_bytes));
    return;
  } catch (const Error& error) {
    message = error.what();
    field = error.field();
  } catch (const std::bad_alloc&) {
    message = printable(path) + ": needs far more memory than its length explains";
  }
  sender.value(Outcome::kError);
  sender.text(message);
  sender.text(field);
}

RawFile read_once(const std::string& path, std::uint64_t file_bytes) {
  const std::uint64_t data = file_bytes * kMaxExpansion;
  const IsolationLimits limits = {
      kBaseSeconds + static_cast<unsigned>(file_bytes / kBytesPerSecond),
      data + 4 * file_bytes + kBaseMemory};
  std::unique_ptr<IsolatedProcess> process;
  {
    // Held while forking: no other thread is inside the library, and the child inherits it so.
    const Hdf5Session session;
    process = std::make_unique<IsolatedProcess>(
        limits, [&](const Send& send) { parse_and_send(path, file_bytes, send); });
  }
  // Texts, names and messages are shorter than the file; the slack is for an error's own words.
  Receiver receiver(*process, path, data + 4 * file_bytes + (std::uint64_t{1} << 20));
  if (receiver.value<Outcome>() == Outcome::kFile) return receive_file(receiver);
  const std::string message = receiver.text();
  throw Error(ErrorKind::kInput, message, receiver.text());
}

}  // namespace

RawFile read_raw(const std::string& path, std::uint64_t file_bytes) {
  try {
    return read_once(path, file_bytes);
  } catch (const TimedOut&) {
    // A process forked while another thread holds a lock of the allocator never gets it, where the
    // allocator does not look after forks (GCC 12's AddressSanitizer). That must not condemn
    // a good file; a file that really makes the library hang does so again.
    return read_once(path, file_bytes);
  }
}

}  // namespace attn::golden
