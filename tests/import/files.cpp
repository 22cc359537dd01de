#include "tests/import/files.h"

#include <unistd.h>
#include <zip.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <sstream>
#include <stdexcept>

#include "harness/cli/program.h"
#include "reference/core/philox.h"

namespace attn::test {
namespace {

template <typename T>
void put(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

void put_text(std::string& out, std::string_view text) {
  put(out, static_cast<std::uint64_t>(text.size()));
  out += text;
}

std::string bytes_of(const Tensor& t) {
  return {reinterpret_cast<const char*>(t.data()), t.bytes().size()};
}

const char* safetensors_name(ElementType type) {
  switch (type) {
    case ElementType::kFloat64:
      return "F64";
    case ElementType::kFloat32:
      return "F32";
    case ElementType::kFloat16:
      return "F16";
    case ElementType::kBFloat16:
      return "BF16";
    case ElementType::kFloat8E4M3FN:
      return "F8_E4M3";
    case ElementType::kInt64:
      return "I64";
    case ElementType::kInt32:
      return "I32";
    case ElementType::kUInt8:
      return "U8";
    default:
      throw std::logic_error("no safetensors type");
  }
}

const char* npy_name(ElementType type) {
  switch (type) {
    case ElementType::kFloat64:
      return "<f8";
    case ElementType::kFloat32:
      return "<f4";
    case ElementType::kFloat16:
      return "<f2";
    case ElementType::kBFloat16:
      return "|V2";
    case ElementType::kInt64:
      return "<i8";
    case ElementType::kInt32:
      return "<i4";
    case ElementType::kUInt8:
      return "|b1";
    default:
      throw std::logic_error("no npy type");
  }
}

void put_value(std::string& out, const nlohmann::json& value, bool with_type) {
  constexpr std::uint32_t kUint32 = 4, kFloat32 = 6, kBool = 7, kString = 8, kArray = 9;
  const auto type = [&](std::uint32_t id) {
    if (with_type) put(out, id);
  };
  if (value.is_string()) {
    type(kString);
    put_text(out, value.get<std::string>());
  } else if (value.is_boolean()) {
    type(kBool);
    put(out, static_cast<std::uint8_t>(value.get<bool>()));
  } else if (value.is_number_integer()) {
    type(kUint32);
    put(out, value.get<std::uint32_t>());
  } else if (value.is_number()) {
    type(kFloat32);
    put(out, value.get<float>());
  } else {
    type(kArray);
    put(out, value[0].is_string() ? kString : value[0].is_boolean() ? kBool : kUint32);
    put(out, static_cast<std::uint64_t>(value.size()));
    for (const auto& element : value) put_value(out, element, false);
  }
}

}  // namespace

TempFolder::TempFolder() {
  std::string name = (std::filesystem::temp_directory_path() / "attn-import-XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("no temporary folder");
  path_ = name;
}
TempFolder::~TempFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::string read_bytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

void write_bytes(const std::string& path, std::string_view bytes) {
  std::ofstream file(path, std::ios::binary);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  if (!file.flush()) throw std::runtime_error("cannot write " + path);
}

Tensor random_tensor(std::string_view name, ElementType type, Shape shape, double gain) {
  Tensor t(type, std::move(shape));
  const RandomStream stream(1, std::string(name));
  for (std::int64_t i = 0; i < t.size(); ++i) {
    t.set_value(i, gain * stream.normal(static_cast<std::uint64_t>(i)));
  }
  return t;
}

Tensor random_bytes(std::string_view name, ElementType type, Shape shape) {
  Tensor t(type, std::move(shape));
  const RandomStream stream(2, std::string(name));
  for (std::size_t i = 0; i < t.bytes().size(); ++i) {
    t.bytes()[i] = static_cast<std::byte>(stream.below(i, 256));
  }
  return t;
}

std::string safetensors_bytes(const Tensors& tensors) {
  nlohmann::json header = {{"__metadata__", {{"format", "pt"}}}};
  std::string data;
  for (const auto& [name, t] : tensors) {
    header[name] = {{"dtype", safetensors_name(t.type())},
                    {"shape", t.shape()},
                    {"data_offsets", {data.size(), data.size() + t.bytes().size()}}};
    data += bytes_of(t);
  }
  const std::string text = header.dump();
  std::string out;
  put(out, static_cast<std::uint64_t>(text.size()));
  return out + text + data;
}

std::string npy_bytes(const Tensor& t) {
  std::string shape;
  for (const std::int64_t axis : t.shape()) shape += std::to_string(axis) + ", ";
  std::string header = std::string("{'descr': '") + npy_name(t.type()) +
                       "', 'fortran_order': False, 'shape': (" + shape + "), }";
  while ((10 + header.size() + 1) % 64 != 0) header += ' ';
  header += '\n';
  std::string out("\x93NUMPY\x01\x00", 8);
  put(out, static_cast<std::uint16_t>(header.size()));
  return out + header + bytes_of(t);
}

void write_npz(const std::string& path, const Tensors& tensors, bool deflate) {
  int code = 0;
  zip_t* archive = zip_open(path.c_str(), ZIP_CREATE | ZIP_TRUNCATE, &code);
  if (archive == nullptr) throw std::runtime_error("cannot write " + path);
  std::vector<std::string> contents;
  contents.reserve(tensors.size());  // the library keeps pointers until it closes
  for (const auto& [name, t] : tensors) {
    contents.push_back(npy_bytes(t));
    zip_source_t* source =
        zip_source_buffer(archive, contents.back().data(), contents.back().size(), 0);
    const zip_int64_t index = zip_file_add(archive, (name + ".npy").c_str(), source, 0);
    zip_set_file_compression(archive, static_cast<zip_uint64_t>(index),
                             deflate ? ZIP_CM_DEFLATE : ZIP_CM_STORE, 0);
  }
  if (zip_close(archive) != 0) throw std::runtime_error("cannot write " + path);
}

std::string gguf_bytes(const nlohmann::json& metadata,
                       const std::map<std::string, GgufTensor>& tensors, std::uint32_t version) {
  constexpr std::size_t kAlignment = 32;
  std::string out = "GGUF";
  put(out, version);
  put(out, static_cast<std::uint64_t>(tensors.size()));
  put(out, static_cast<std::uint64_t>(metadata.size()));
  for (const auto& item : metadata.items()) {
    put_text(out, item.key());
    put_value(out, item.value(), true);
  }
  std::string data;
  for (const auto& [name, t] : tensors) {
    put_text(out, name);
    put(out, static_cast<std::uint32_t>(t.axes.size()));
    for (const std::uint64_t axis : t.axes) put(out, axis);
    put(out, t.type);
    put(out, static_cast<std::uint64_t>(data.size()));
    data += t.bytes;
    data.resize((data.size() + kAlignment - 1) / kAlignment * kAlignment, '\0');
  }
  out.resize((out.size() + kAlignment - 1) / kAlignment * kAlignment, '\0');
  return out + data;
}

GgufTensor gguf_dense(const Tensor& t) {
  GgufTensor out;
  out.type = t.type() == ElementType::kFloat32 ? 0 : t.type() == ElementType::kFloat16 ? 1 : 30;
  for (auto axis = t.shape().rbegin(); axis != t.shape().rend(); ++axis) {
    out.axes.push_back(static_cast<std::uint64_t>(*axis));
  }
  out.bytes = bytes_of(t);
  return out;
}

Ran run(const std::vector<std::string>& args) {
  std::ostringstream out;
  std::ostringstream err;
  Ran ran;
  ran.code = cli::run_program(args, {out, err});
  ran.out = out.str();
  ran.err = err.str();
  return ran;
}

}  // namespace attn::test
