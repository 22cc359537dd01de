// The format: https://github.com/huggingface/safetensors, README, "Format": a 64-bit little-endian
// length, a JSON header, then the tensors' bytes without holes.
#include <algorithm>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "golden/import/byte_file.h"
#include "golden/import/json_text.h"
#include "golden/import/tensor_file.h"
#include "golden/raw_file.h"
#include "reference/core/error.h"

namespace attn::golden {
namespace {

using Json = nlohmann::json;

constexpr std::uint64_t kLongestHeader = 100'000'000;  // the format's own limit
constexpr std::size_t kMostAxes = 8;

struct SafetensorsType {
  std::string_view name;
  std::uint64_t bits;
  std::optional<ElementType> type;
};
constexpr auto kTypes = std::to_array<SafetensorsType>({
    {"F64", 64, ElementType::kFloat64},
    {"F32", 32, ElementType::kFloat32},
    {"F16", 16, ElementType::kFloat16},
    {"BF16", 16, ElementType::kBFloat16},
    {"F8_E4M3", 8, ElementType::kFloat8E4M3FN},
    {"F8_E5M2", 8, ElementType::kFloat8E5M2},
    {"F8_E8M0", 8, ElementType::kFloat8E8M0FNU},
    {"I64", 64, ElementType::kInt64},
    {"I32", 32, ElementType::kInt32},
    {"U32", 32, ElementType::kUInt32},
    {"U8", 8, ElementType::kUInt8},
    {"BOOL", 8, ElementType::kUInt8},
    {"F4", 4, std::nullopt},
    {"F6_E2M3", 6, std::nullopt},
    {"F6_E3M2", 6, std::nullopt},
    {"I16", 16, std::nullopt},
    {"I8", 8, std::nullopt},
    {"U16", 16, std::nullopt},
    {"U64", 64, std::nullopt},
    {"C64", 64, std::nullopt},
});

const SafetensorsType& find_type(const std::string& path, const std::string& tensor,
                                 const std::string& name) {
  const auto found = std::ranges::find(kTypes, name, &SafetensorsType::name);
  if (found != kTypes.end()) return *found;
  std::vector<std::string> known;
  known.reserve(kTypes.size());
  for (const SafetensorsType& type : kTypes) known.emplace_back(type.name);
  refuse_file(path, tensor, "dtype \"" + name + "\" is unknown" + hint(name, known));
}

std::uint64_t unsigned_number(const std::string& path, const std::string& where,
                              const Json& value) {
  if (!value.is_number_unsigned() ||
      value.get<std::uint64_t>() > static_cast<std::uint64_t>(INT64_MAX)) {
    refuse_file(path, where, "is not a whole number below 2^63; the header is malformed");
  }
  return value.get<std::uint64_t>();
}

/// The entry of one tensor; offsets are still relative to the end of the header.
StoredTensor parse_entry(const std::string& path, const std::string& name, const Json& json) {
  if (!json.is_object() || json.size() != 3 || !json.contains("dtype") || !json.contains("shape") ||
      !json.contains("data_offsets") || !json["dtype"].is_string() || !json["shape"].is_array() ||
      !json["data_offsets"].is_array() || json["data_offsets"].size() != 2) {
    refuse_file(path, name,
                "must be {\"dtype\": NAME, \"shape\": [...], \"data_offsets\": [BEGIN, END]}");
  }
  StoredTensor stored;
  stored.file = path;
  stored.dtype = json["dtype"].get<std::string>();
  const SafetensorsType& type = find_type(path, name, stored.dtype);
  stored.type = type.type;
  if (json["shape"].size() > kMostAxes) {
    refuse_file(path, name, "has more than 8 axes; the header is malformed");
  }
  std::uint64_t bits = type.bits;
  bool overflow = false;
  for (const Json& axis : json["shape"]) {
    const std::uint64_t length = unsigned_number(path, name + ": shape", axis);
    stored.shape.push_back(static_cast<std::int64_t>(length));
    overflow |= __builtin_mul_overflow(bits, length, &bits);
  }
  const std::uint64_t begin =
      unsigned_number(path, name + ": data_offsets", json["data_offsets"][0]);
  const std::uint64_t end = unsigned_number(path, name + ": data_offsets", json["data_offsets"][1]);
  if (overflow || bits % 8 != 0 || end < begin || end - begin != bits / 8) {
    refuse_file(path, name,
                "data_offsets [" + std::to_string(begin) + ", " + std::to_string(end) +
                    "] do not hold " + stored.dtype + " " + to_string(stored.shape) +
                    "; the file is damaged");
  }
  stored.offset = begin;
  stored.bytes = end - begin;
  return stored;
}

void check_metadata(const std::string& path, const Json& metadata) {
  const bool strings = metadata.is_object() &&
                       std::ranges::all_of(metadata, [](const Json& v) { return v.is_string(); });
  if (!strings) refuse_file(path, "__metadata__", "must be an object of strings");
}

class SafetensorsFile : public TensorFile {
 public:
  explicit SafetensorsFile(const std::string& path) : TensorFile(path), file_(path) {
    read_header();
    check_coverage();
    for (auto& [name, stored] : tensors_) stored.offset += data_begin_;
  }

 private:
  void read_header() {
    std::array<unsigned char, 8> length_bytes{};
    file_.read(0, std::as_writable_bytes(std::span(length_bytes)), "header length");
    std::uint64_t length = 0;
    for (std::size_t i = 8; i-- > 0;) length = length << 8 | length_bytes[i];
    if (length > kLongestHeader || length > file_.size() - 8) {
      refuse_file(path_, "header length",
                  "is " + std::to_string(length) + " in a file of " + std::to_string(file_.size()) +
                      " bytes; this is no safetensors, npz, npy or GGUF file, or it is cut short");
    }
    std::string text(length, '\0');
    file_.read(8, std::as_writable_bytes(std::span(text)), "header");
    if (!text.starts_with("{")) {
      refuse_file(path_, "header", "must begin with '{'; this is no safetensors file");
    }
    data_begin_ = 8 + length;
    const Json header = parse_json_part(path_, "header", text, kLongestHeader);
    for (const auto& item : header.items()) {
      if (item.key() == "__metadata__") {
        check_metadata(path_, item.value());
      } else {
        tensors_[item.key()] = parse_entry(path_, item.key(), item.value());
      }
    }
  }

  /// The tensors cover the bytes behind the header once, without holes.
  void check_coverage() const {
    std::vector<std::pair<std::uint64_t, std::string>> order;
    for (const auto& [name, stored] : tensors_) {
      // An empty tensor lies before the one that begins at the same byte.
      order.emplace_back(2 * stored.offset + (stored.bytes != 0 ? 1 : 0), name);
    }
    std::ranges::sort(order);
    std::uint64_t at = 0;
    for (const auto& [key, name] : order) {
      const StoredTensor& stored = tensors_.at(name);
      if (stored.offset != at) {
        refuse_file(path_, name,
                    "begins at byte " + std::to_string(stored.offset) + " of the data, " +
                        (stored.offset < at ? "inside of another tensor"
                                            : "behind a hole from byte " + std::to_string(at)) +
                        "; the file is damaged");
      }
      at += stored.bytes;
    }
    if (at != file_.size() - data_begin_) {
      refuse_file(path_, "data",
                  "the tensors take " + std::to_string(at) + " bytes, behind the header are " +
                      std::to_string(file_.size() - data_begin_) +
                      "; the file is cut short or damaged");
    }
  }

  void read_bytes(const std::string& name, const StoredTensor& stored,
                  Tensor& tensor) const override {
    file_.read(stored.offset, tensor.bytes(), name);
  }

  ByteFile file_;
  std::uint64_t data_begin_ = 0;
};

/// The shards of an index, opened as the tensors of one file.
class Checkpoint : public TensorFile {
 public:
  explicit Checkpoint(const std::string& folder) : TensorFile(folder) {}

  void add(const std::string& path) {
    shards_.push_back(open_safetensors(path));
    for (const auto& [name, stored] : shards_.back()->tensors()) {
      if (!tensors_.emplace(name, stored).second) {
        refuse_file(path, name, "is in another shard too; the checkpoint is inconsistent");
      }
      shard_of_[name] = shards_.size() - 1;
    }
  }

  /// What the index says must be what the shards hold.
  void check(const std::string& index_path, const Json& weight_map, const std::string& folder) {
    for (const auto& item : weight_map.items()) {
      const auto found = tensors_.find(item.key());
      const auto shard = std::filesystem::path(folder) / item.value().get<std::string>();
      if (found == tensors_.end() || found->second.file != shard.string()) {
        refuse_file(index_path, item.key(),
                    "is said to be in " + item.value().get<std::string>() +
                        ", which does not hold it; download the checkpoint again");
      }
    }
  }

 private:
  void read_bytes(const std::string& name, const StoredTensor&, Tensor& tensor) const override {
    tensor = shards_[shard_of_.at(name)]->read(name);
  }

  std::vector<std::unique_ptr<TensorFile>> shards_;
  std::map<std::string, std::size_t> shard_of_;
};

}  // namespace

std::unique_ptr<TensorFile> open_safetensors(const std::string& path) {
  return std::make_unique<SafetensorsFile>(path);
}

std::unique_ptr<TensorFile> open_checkpoint(const std::string& folder) {
  namespace fs = std::filesystem;
  constexpr std::size_t kLongestIndex = 64U << 20;
  const fs::path root(folder);
  auto checkpoint = std::make_unique<Checkpoint>(folder);
  const fs::path index = root / "model.safetensors.index.json";
  if (!fs::exists(index)) {
    std::vector<std::string> files;
    if (fs::exists(root / "model.safetensors")) {
      checkpoint->add((root / "model.safetensors").string());
      return checkpoint;
    }
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(root, error)) {
      if (entry.path().extension() == ".safetensors") files.push_back(entry.path().string());
    }
    if (error) refuse_file(folder, "", "cannot be read: " + error.message());
    if (files.size() != 1) {
      refuse_file(folder, "",
                  "holds " + std::to_string(files.size()) +
                      " *.safetensors files and no model.safetensors.index.json; name a folder "
                      "with one file, or with an index");
    }
    checkpoint->add(files.front());
    return checkpoint;
  }
  const Json json = read_json_file(index.string(), kLongestIndex);
  if (!json.is_object() || !json.contains("weight_map") || !json["weight_map"].is_object()) {
    refuse_file(index.string(), "weight_map", "is missing; this is no index of shards");
  }
  std::set<std::string> shards;
  for (const auto& item : json["weight_map"].items()) {
    const bool plain =
        item.value().is_string() && fs::path(item.value().get<std::string>()).filename() ==
                                        fs::path(item.value().get<std::string>());
    if (!plain) {
      refuse_file(index.string(), item.key(),
                  "must name a file beside the index, without a folder");
    }
    shards.insert((root / item.value().get<std::string>()).string());
  }
  for (const std::string& shard : shards) checkpoint->add(shard);
  checkpoint->check(index.string(), json["weight_map"], folder);
  return checkpoint;
}

}  // namespace attn::golden
