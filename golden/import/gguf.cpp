// The format: ggml's docs/gguf.md; block sizes: ggml-common.h.
#include "golden/import/gguf.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>

#include "golden/import/byte_file.h"

namespace attn::golden {
namespace {

using Json = nlohmann::json;

constexpr std::uint64_t kLongestKey = 65535;  // the format's own limit
constexpr std::uint64_t kLongestText = 1U << 20;
constexpr std::uint64_t kLongestArray = 65536;
constexpr std::uint64_t kMostAxes = 4;
constexpr std::uint64_t kLargestAlignment = 1U << 20;
constexpr int kDeepestArray = 3;

struct GgmlType {
  std::uint32_t id;
  std::string_view name;
  std::uint64_t elements;  ///< of one block
  std::uint64_t bytes;     ///< of one block
  std::optional<ElementType> type;
  QuantEncoding encoding = QuantEncoding::kNone;
};
constexpr ElementType kBytes = ElementType::kUInt8;
constexpr auto kTypes = std::to_array<GgmlType>({
    {0, "F32", 1, 4, ElementType::kFloat32},
    {1, "F16", 1, 2, ElementType::kFloat16},
    {2, "Q4_0", 32, 18, kBytes, QuantEncoding::kQ4_0},
    {3, "Q4_1", 32, 20, std::nullopt},
    {6, "Q5_0", 32, 22, std::nullopt},
    {7, "Q5_1", 32, 24, std::nullopt},
    {8, "Q8_0", 32, 34, kBytes, QuantEncoding::kQ8_0},
    {9, "Q8_1", 32, 36, std::nullopt},
    {10, "Q2_K", 256, 84, std::nullopt},
    {11, "Q3_K", 256, 110, std::nullopt},
    {12, "Q4_K", 256, 144, kBytes, QuantEncoding::kQ4_K},
    {13, "Q5_K", 256, 176, kBytes, QuantEncoding::kQ5_K},
    {14, "Q6_K", 256, 210, kBytes, QuantEncoding::kQ6_K},
    {15, "Q8_K", 256, 292, std::nullopt},
    {16, "IQ2_XXS", 256, 66, std::nullopt},
    {17, "IQ2_XS", 256, 74, std::nullopt},
    {18, "IQ3_XXS", 256, 98, std::nullopt},
    {19, "IQ1_S", 256, 50, std::nullopt},
    {20, "IQ4_NL", 32, 18, std::nullopt},
    {21, "IQ3_S", 256, 110, std::nullopt},
    {22, "IQ2_S", 256, 82, std::nullopt},
    {23, "IQ4_XS", 256, 136, std::nullopt},
    {24, "I8", 1, 1, std::nullopt},
    {25, "I16", 1, 2, std::nullopt},
    {26, "I32", 1, 4, ElementType::kInt32},
    {27, "I64", 1, 8, ElementType::kInt64},
    {28, "F64", 1, 8, ElementType::kFloat64},
    {29, "IQ1_M", 256, 56, std::nullopt},
    {30, "BF16", 1, 2, ElementType::kBFloat16},
    {34, "TQ1_0", 256, 54, std::nullopt},
    {35, "TQ2_0", 256, 66, std::nullopt},
    {39, "MXFP4", 32, 17, std::nullopt},
});

enum ValueType : std::uint32_t {
  kUint8,
  kInt8,
  kUint16,
  kInt16,
  kUint32,
  kInt32,
  kFloat32,
  kBool,
  kString,
  kArray,
  kUint64,
  kInt64,
  kFloat64,
};
/// Bytes of a value; a string or array takes at least its length.
constexpr std::array<std::uint64_t, 13> kValueBytes = {1, 1, 2, 2, 4, 4, 4, 1, 8, 12, 8, 8, 8};

/// Reads numbers and strings one behind the other, through a buffer.
class Cursor {
 public:
  explicit Cursor(const ByteFile& file) : file_(file) {}

  std::uint64_t position() const { return position_; }
  std::uint64_t left() const { return file_.size() - position_; }

  void take(std::span<std::byte> out, const std::string& where) {
    if (out.size() > buffer_.size() / 2) {
      file_.read(position_, out, where);
    } else {
      const bool buffered = position_ >= begin_ && position_ + out.size() <= begin_ + filled_;
      if (!buffered) {
        begin_ = position_;
        filled_ = std::min<std::uint64_t>(buffer_.size(), left());
        file_.read(begin_, std::span(buffer_).first(filled_), where);
      }
      if (out.size() > filled_) file_.read(position_, out, where);  // throws: cut short
      std::copy_n(buffer_.begin() + static_cast<std::ptrdiff_t>(position_ - begin_), out.size(),
                  out.begin());
    }
    position_ += out.size();
  }
  template <typename T>
  T number(const std::string& where) {
    T value{};
    take(std::as_writable_bytes(std::span(&value, 1)), where);
    return value;
  }
  std::string text(std::uint64_t longest, const std::string& where) {
    const auto length = number<std::uint64_t>(where);
    if (length > longest || length > left()) {
      refuse_file(
          file_.path(), where,
          "a text is " + std::to_string(length) + " bytes long; the file is damaged or cut short");
    }
    std::string out(length, '\0');
    take(std::as_writable_bytes(std::span(out)), where);
    return out;
  }
  void skip(std::uint64_t bytes, const std::string& where) {
    if (bytes > left()) refuse_file(file_.path(), where, "the file is cut short");
    position_ += bytes;
  }

 private:
  const ByteFile& file_;
  std::uint64_t position_ = 0;
  std::uint64_t begin_ = 0;
  std::uint64_t filled_ = 0;
  std::vector<std::byte> buffer_ = std::vector<std::byte>(std::size_t{64} << 10);
};

class Gguf : public GgufFile {
 public:
  explicit Gguf(const std::string& path) : GgufFile(path), file_(path) {
    Cursor in(file_);
    std::array<char, 4> magic{};
    in.take(std::as_writable_bytes(std::span(magic)), "magic");
    if (std::string_view(magic.data(), 4) != "GGUF") {
      refuse_file(path, "magic", "is not GGUF; this is no GGUF file");
    }
    const auto version = in.number<std::uint32_t>("version");
    if (version != 2 && version != 3) {
      refuse_file(path, "version",
                  "is " + std::to_string(version) +
                      "; little-endian files of version 2 and 3 are read, convert it again");
    }
    const auto tensors = in.number<std::uint64_t>("tensor count");
    const auto keys = in.number<std::uint64_t>("metadata count");
    // A key takes at least 12 bytes, a tensor's entry 24.
    if (keys > in.left() / 12 || tensors > in.left() / 24) {
      refuse_file(path, "header", "counts more keys or tensors than the file has room for");
    }
    for (std::uint64_t i = 0; i < keys; ++i) read_key(in);
    for (std::uint64_t i = 0; i < tensors; ++i) read_entry(in);
    place_tensors(in.position());
  }

 private:
  void read_key(Cursor& in) {
    const std::string key = in.text(kLongestKey, "metadata key");
    const auto type = in.number<std::uint32_t>(key);
    Json value = read_value(in, type, key, 0);
    if (metadata_.contains(key)) refuse_file(path_, key, "is given twice");
    if (!value.is_discarded()) metadata_[key] = std::move(value);
  }

  /// Discarded for what is not kept.
  Json read_value(Cursor& in, std::uint32_t type, const std::string& key, int depth) {
    switch (type) {
      case kUint8:
        return in.number<std::uint8_t>(key);
      case kInt8:
        return in.number<std::int8_t>(key);
      case kUint16:
        return in.number<std::uint16_t>(key);
      case kInt16:
        return in.number<std::int16_t>(key);
      case kUint32:
        return in.number<std::uint32_t>(key);
      case kInt32:
        return in.number<std::int32_t>(key);
      case kFloat32:
        return static_cast<double>(in.number<float>(key));
      case kBool:
        return in.number<std::uint8_t>(key) != 0;
      case kString:
        return in.text(kLongestText, key);
      case kArray:
        return read_array(in, key, depth);
      case kUint64:
        return in.number<std::uint64_t>(key);
      case kInt64:
        return in.number<std::int64_t>(key);
      case kFloat64:
        return in.number<double>(key);
      default:
        refuse_file(path_, key, "has value type " + std::to_string(type) + ", which is unknown");
    }
  }

  Json read_array(Cursor& in, const std::string& key, int depth) {
    const auto type = in.number<std::uint32_t>(key);
    const auto count = in.number<std::uint64_t>(key);
    if (type >= kValueBytes.size()) {
      refuse_file(path_, key, "has element type " + std::to_string(type) + ", which is unknown");
    }
    if (depth >= kDeepestArray || count > in.left() / kValueBytes[type]) {
      refuse_file(
          path_, key,
          "is an array of " + std::to_string(count) + " elements, more than the file has room for");
    }
    Json values = Json::array();
    if (type == kString || type == kArray || count > kLongestArray) {
      // Vocabularies: walked over, not kept.
      if (type != kString && type != kArray) {
        in.skip(count * kValueBytes[type], key);
      } else {
        for (std::uint64_t i = 0; i < count; ++i) {
          if (type == kArray) {
            read_array(in, key, depth + 1);
          } else {
            in.skip(in.number<std::uint64_t>(key), key);
          }
        }
      }
      return Json(Json::value_t::discarded);
    }
    for (std::uint64_t i = 0; i < count; ++i) values.push_back(read_value(in, type, key, depth));
    return values;
  }

  void read_entry(Cursor& in) {
    const std::string name = in.text(kLongestKey, "tensor name");
    const auto axes = in.number<std::uint32_t>(name);
    if (axes > kMostAxes) {
      refuse_file(path_, name, "has " + std::to_string(axes) + " axes, at most 4 are possible");
    }
    std::vector<std::uint64_t> lengths;
    for (std::uint32_t i = 0; i < axes; ++i) lengths.push_back(in.number<std::uint64_t>(name));
    const auto id = in.number<std::uint32_t>(name);
    const auto type = std::ranges::find(kTypes, id, &GgmlType::id);
    if (type == kTypes.end()) {
      refuse_file(path_, name, "has tensor type " + std::to_string(id) + ", which is unknown");
    }
    StoredTensor stored;
    stored.file = path_;
    stored.dtype = type->name;
    stored.type = type->type;
    stored.encoding = type->encoding;
    stored.offset = in.number<std::uint64_t>(name);
    set_shape(name, lengths, *type, stored);
    if (!tensors_.emplace(name, std::move(stored)).second) {
      refuse_file(path_, name, "is given twice");
    }
  }

  /// Axes are stored innermost first. Blocks lie along the innermost.
  void set_shape(const std::string& name, const std::vector<std::uint64_t>& lengths,
                 const GgmlType& type, StoredTensor& stored) const {
    const std::uint64_t row = lengths.empty() ? 1 : lengths.front();
    bool broken = row % type.elements != 0;
    std::uint64_t bytes = 0;
    broken |= __builtin_mul_overflow(row / type.elements, type.bytes, &bytes);
    for (std::size_t i = 1; i < lengths.size(); ++i) {
      broken |= __builtin_mul_overflow(bytes, lengths[i], &bytes);
    }
    if (broken || bytes > file_.size()) {
      refuse_file(
          path_, name,
          "its axes do not fit type " + stored.dtype + " or the file's size; the file is damaged");
    }
    stored.bytes = bytes;
    for (const std::uint64_t length : lengths) {
      if (length > static_cast<std::uint64_t>(INT64_MAX)) refuse_file(path_, name, "is too long");
      stored.shape.insert(stored.shape.begin(), static_cast<std::int64_t>(length));
    }
    if (stored.encoding != QuantEncoding::kNone) {
      stored.shape.back() = static_cast<std::int64_t>(row / type.elements * type.bytes);
    }
  }

  /// Offsets count from the first aligned byte behind the header; tensors do not overlap.
  void place_tensors(std::uint64_t header_end) {
    std::uint64_t alignment = 32;
    if (metadata_.contains("general.alignment")) {
      const Json& value = metadata_["general.alignment"];
      alignment = value.is_number_unsigned() ? value.get<std::uint64_t>() : 0;
      if (!std::has_single_bit(alignment) || alignment > kLargestAlignment) {
        refuse_file(path_, "general.alignment", "must be a power of two up to 2^20");
      }
    }
    const std::uint64_t begin = (header_end + alignment - 1) / alignment * alignment;
    std::vector<std::pair<std::uint64_t, std::string>> order;
    for (auto& [name, stored] : tensors_) {
      if (stored.offset % alignment != 0 || stored.offset > file_.size() ||
          begin + stored.offset > file_.size() ||
          stored.bytes > file_.size() - begin - stored.offset) {
        refuse_file(path_, name,
                    "lies at byte " + std::to_string(stored.offset) +
                        " of the data, unaligned or beyond the end of the file; the "
                        "file is damaged or cut short");
      }
      stored.offset += begin;
      if (stored.bytes != 0) order.emplace_back(stored.offset, name);
    }
    std::ranges::sort(order);
    for (std::size_t i = 1; i < order.size(); ++i) {
      const StoredTensor& before = tensors_.at(order[i - 1].second);
      if (before.offset + before.bytes > order[i].first) {
        refuse_file(path_, order[i].second,
                    "overlaps " + order[i - 1].second + "; the file is damaged");
      }
    }
  }

  void read_bytes(const std::string& name, const StoredTensor& stored,
                  Tensor& tensor) const override {
    file_.read(stored.offset, tensor.bytes(), name);
  }

  ByteFile file_;
};

}  // namespace

std::unique_ptr<GgufFile> open_gguf(const std::string& path) {
  return std::make_unique<Gguf>(path);
}

}  // namespace attn::golden
