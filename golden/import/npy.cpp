// The format: numpy/lib/format.py, "Format Version 1.0" to "3.0".
#include "golden/import/npy.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <filesystem>
#include <string_view>

#include "golden/import/byte_file.h"

namespace attn::golden {
namespace {

constexpr std::uint64_t kLongestHeader = 65536;
constexpr std::size_t kMostAxes = 8;

struct NpyType {
  std::string_view code;  ///< kind and bytes
  std::uint64_t bytes;
  std::optional<ElementType> type;
};
constexpr auto kTypes = std::to_array<NpyType>({
    {"f8", 8, ElementType::kFloat64},
    {"f4", 4, ElementType::kFloat32},
    {"f2", 2, ElementType::kFloat16},
    // ml_dtypes' bfloat16 has no name in the format and is saved as two opaque bytes.
    {"V2", 2, ElementType::kBFloat16},
    {"i8", 8, ElementType::kInt64},
    {"i4", 4, ElementType::kInt32},
    {"u4", 4, ElementType::kUInt32},
    {"u1", 1, ElementType::kUInt8},
    {"b1", 1, ElementType::kUInt8},
    {"i2", 2, std::nullopt},
    {"i1", 1, std::nullopt},
    {"u8", 8, std::nullopt},
    {"u2", 2, std::nullopt},
    {"V1", 1, std::nullopt},
    {"f1", 1, std::nullopt},
    {"c8", 8, std::nullopt},
    {"c16", 16, std::nullopt},
});

/// The header: a Python dict literal with the keys descr, fortran_order and shape.
class HeaderParser {
 public:
  HeaderParser(const std::string& path, const std::string& name, std::string_view text)
      : path_(path), name_(name), text_(text) {}

  std::string descr;
  bool fortran_order = false;
  Shape shape;

  void parse() {
    bool seen[3] = {};
    expect('{');
    while (!take('}')) {
      const std::string key = quoted();
      expect(':');
      std::size_t which = 0;
      if (key == "descr") {
        if (peek() != '\'' && peek() != '"') fail("descr is a structured type; save plain arrays");
        descr = quoted();
      } else if (key == "fortran_order") {
        which = 1;
        fortran_order = boolean();
      } else if (key == "shape") {
        which = 2;
        parse_shape();
      } else {
        fail("has an unknown key");
      }
      if (seen[which]) fail("gives a key twice");
      seen[which] = true;
      if (!take(',') && peek() != '}') fail("lacks a comma");
    }
    if (peek() != '\0') fail("goes on behind its '}'");
    if (!seen[0] || !seen[1] || !seen[2]) fail("lacks descr, fortran_order or shape");
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    refuse_file(path_, name_, "the npy header " + what);
  }
  /// The next character that is no space; 0 at the end.
  char peek() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n')) ++at_;
    return at_ < text_.size() ? text_[at_] : '\0';
  }
  bool take(char wanted) {
    if (peek() != wanted) return false;
    ++at_;
    return true;
  }
  void expect(char wanted) {
    if (!take(wanted)) fail(std::string("lacks a '") + wanted + "'");
  }
  std::string quoted() {
    const char quote = peek();
    if (quote != '\'' && quote != '"') fail("lacks a quoted word");
    const std::size_t end = text_.find(quote, at_ + 1);
    if (end == std::string_view::npos) fail("has an open quote");
    std::string word(text_.substr(at_ + 1, end - at_ - 1));
    at_ = end + 1;
    return word;
  }
  bool boolean() {
    peek();
    for (const auto& [word, value] : {std::pair{"True", true}, {"False", false}}) {
      if (text_.substr(at_).starts_with(word)) {
        at_ += std::string_view(word).size();
        return value;
      }
    }
    fail("has a fortran_order that is neither True nor False");
  }
  void parse_shape() {
    expect('(');
    while (!take(')')) {
      peek();
      std::int64_t length = -1;
      const char* const begin = text_.data() + at_;
      const auto [end, error] = std::from_chars(begin, text_.data() + text_.size(), length);
      if (error != std::errc{} || length < 0) fail("has an axis that is no length");
      at_ += static_cast<std::size_t>(end - begin);
      take('L');  // a long of Python 2
      shape.push_back(length);
      if (shape.size() > kMostAxes) fail("has more than 8 axes");
      if (!take(',') && peek() != ')') fail("lacks a comma in its shape");
    }
  }

  const std::string& path_;
  const std::string& name_;
  std::string_view text_;
  std::size_t at_ = 0;
};

const NpyType& find_type(const std::string& path, const std::string& name,
                         const std::string& descr) {
  const auto found = std::ranges::find(
      kTypes, descr.empty() ? std::string_view() : std::string_view(descr).substr(1),
      &NpyType::code);
  if (found == kTypes.end() || std::string_view("<>|=").find(descr[0]) == std::string_view::npos) {
    refuse_file(path, name, "dtype \"" + descr + "\" is unknown; save it as float32 or float16");
  }
  if (descr[0] == '>' && found->bytes > 1) {
    refuse_file(path, name,
                "dtype \"" + descr + "\" is big-endian; save it with .astype(\"<" +
                    std::string(found->code) + "\")");
  }
  return *found;
}

class NpyFile : public TensorFile {
 public:
  explicit NpyFile(const std::string& path) : TensorFile(path), file_(path) {
    const std::string name = std::filesystem::path(path).stem().string();
    std::uint64_t at = 0;
    StoredTensor stored = read_npy_header(path, name, file_.size(),
                                          [&](std::span<std::byte> out, const std::string& where) {
                                            file_.read(at, out, where);
                                            at += out.size();
                                          });
    stored.file = path;
    tensors_[name] = std::move(stored);
  }

 private:
  void read_bytes(const std::string& name, const StoredTensor& stored,
                  Tensor& tensor) const override {
    file_.read(stored.offset, tensor.bytes(), name);
  }
  ByteFile file_;
};

}  // namespace

StoredTensor read_npy_header(const std::string& path, const std::string& name, std::uint64_t total,
                             const ReadNext& next) {
  std::array<unsigned char, 8> start{};
  next(std::as_writable_bytes(std::span(start)), name);
  const std::string_view magic(reinterpret_cast<const char*>(start.data()), 6);
  if (magic != "\x93NUMPY" || start[6] < 1 || start[6] > 3 || start[7] != 0) {
    refuse_file(path, name, "is no npy array of version 1, 2 or 3");
  }
  std::array<unsigned char, 4> size{};
  const std::size_t size_bytes = start[6] == 1 ? 2 : 4;
  next(std::as_writable_bytes(std::span(size).first(size_bytes)), name);
  std::uint64_t length = 0;
  for (std::size_t i = size_bytes; i-- > 0;) length = length << 8 | size[i];
  const std::uint64_t begin = start.size() + size_bytes + length;
  if (length > kLongestHeader || begin > total) {
    refuse_file(path, name,
                "the npy header is " + std::to_string(length) + " bytes long; the file is damaged");
  }
  std::string text(length, '\0');
  next(std::as_writable_bytes(std::span(text)), name);
  HeaderParser header(path, name, text);
  header.parse();
  if (header.fortran_order) {
    refuse_file(path, name, "is in Fortran order; save numpy.ascontiguousarray(...) of it");
  }
  StoredTensor stored;
  stored.dtype = header.descr;
  const NpyType& type = find_type(path, name, header.descr);
  stored.type = type.type;
  stored.shape = header.shape;
  std::uint64_t bytes = type.bytes;
  bool overflow = false;
  for (const std::int64_t axis : header.shape) {
    overflow |= __builtin_mul_overflow(bytes, static_cast<std::uint64_t>(axis), &bytes);
  }
  if (overflow || bytes != total - begin) {
    refuse_file(path, name,
                "shape " + to_string(header.shape) + " of " + header.descr + " does not fit its " +
                    std::to_string(total - begin) + " bytes of data; the file is damaged");
  }
  stored.file = path;
  stored.offset = begin;
  stored.bytes = bytes;
  return stored;
}

std::unique_ptr<TensorFile> open_npy(const std::string& path) {
  return std::make_unique<NpyFile>(path);
}

}  // namespace attn::golden
