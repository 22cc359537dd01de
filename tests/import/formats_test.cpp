// The readers alone: what they accept, the refusal of each malformed header, and that nothing in a
// damaged file makes them crash or take much memory.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "golden/import/gguf.h"
#include "golden/import/tensor_file.h"
#include "reference/core/error.h"
#include "reference/core/philox.h"
#include "tests/import/allocations.h"
#include "tests/import/files.h"

namespace attn::test {
namespace {

using ::testing::HasSubstr;

Tensors some_tensors() {
  return {{"a", random_tensor("a", ElementType::kFloat32, {3, 5})},
          {"b.weight", random_tensor("b", ElementType::kBFloat16, {2, 2, 2})},
          {"c", random_tensor("c", ElementType::kFloat16, {7})},
          {"empty", Tensor(ElementType::kFloat32, {0, 4})},
          {"i", random_bytes("i", ElementType::kInt64, {3})},
          {"one", Tensor::scalar(ElementType::kFloat32, 2.5)}};
}

void expect_all(const golden::TensorFile& file, const Tensors& tensors) {
  EXPECT_EQ(file.tensors().size(), tensors.size());
  for (const auto& [name, tensor] : tensors) EXPECT_EQ(file.read(name), tensor) << name;
}

/// Opens and reads everything; "" or the message of the refusal. Anything but a one-line Error of
/// kind input fails the test.
std::string refusal(const std::string& path) {
  try {
    const auto file = golden::open_tensor_file(path);
    for (const auto& [name, entry] : file->tensors()) {
      if (entry.type) file->read(name);
    }
    return "";
  } catch (const Error& error) {
    const std::string what = error.what();
    EXPECT_EQ(error.kind(), ErrorKind::kInput) << what;
    EXPECT_EQ(what.find('\n'), std::string::npos) << what;
    EXPECT_THAT(what, HasSubstr(path));
    return what;
  }
}

std::string refusal_of(const std::string& bytes) {
  const TempFolder folder;
  write_bytes(folder / "f", bytes);
  return refusal(folder / "f");
}

std::string with_header(const std::string& json, std::size_t data_bytes) {
  std::string out(8, '\0');
  out[0] = static_cast<char>(json.size() & 255);
  out[1] = static_cast<char>(json.size() >> 8);
  return out + json + std::string(data_bytes, 'x');
}

TEST(Safetensors, ReadsEveryTensor) {
  const TempFolder folder;
  const Tensors tensors = some_tensors();
  write_bytes(folder / "f", safetensors_bytes(tensors));
  expect_all(*golden::open_tensor_file(folder / "f"), tensors);
}

TEST(Safetensors, RefusesMalformedHeaders) {
  const auto refused = [](const std::string& json, std::size_t bytes) {
    return refusal_of(with_header(json, bytes));
  };
  EXPECT_EQ(refused(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 8), "");
  EXPECT_THAT(refusal_of(""), HasSubstr("header length"));
  EXPECT_THAT(refusal_of(std::string(8, '\xff')), HasSubstr("header length"));
  EXPECT_THAT(refusal_of(std::string("\x01\0\0\0\0\0\0\0[", 9)), HasSubstr("must begin with '{'"));
  EXPECT_THAT(refused("{\"a\":", 0), HasSubstr("not valid JSON"));
  EXPECT_THAT(refused(R"({"a":{"dtype":"F31","shape":[2],"data_offsets":[0,8]}})", 8),
              HasSubstr("\"F31\" is unknown; did you mean \"F32\""));
  EXPECT_THAT(refused(R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", 8),
              HasSubstr("do not hold F32 [3]"));
  EXPECT_THAT(refused(R"({"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})", 8),
              HasSubstr("shape"));
  EXPECT_THAT(refused(R"({"a":{"dtype":"F32","shape":[4294967296,4294967296,4294967296],)"
                      R"("data_offsets":[0,0]}})",
                      0),
              HasSubstr("do not hold"));
  EXPECT_THAT(refused(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":1}})", 8),
              HasSubstr("must be {"));
  EXPECT_THAT(refused(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})", 12),
              HasSubstr("behind a hole"));
  EXPECT_THAT(refused(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                      R"("b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})",
                      12),
              HasSubstr("inside of another tensor"));
  EXPECT_THAT(refused(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 9),
              HasSubstr("behind the header are 9"));
  EXPECT_THAT(refused(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                      R"("a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})",
                      8),
              HasSubstr("given twice"));
  EXPECT_THAT(refused(R"({"__metadata__":{"a":1}})", 0), HasSubstr("__metadata__"));
}

TEST(Npz, ReadsStoredAndDeflatedArrays) {
  const Tensors tensors = some_tensors();
  for (const bool deflate : {false, true}) {
    const TempFolder folder;
    write_npz(folder / "f", tensors, deflate);
    expect_all(*golden::open_tensor_file(folder / "f"), tensors);
  }
}

std::string npy_with(const std::string& header, const std::string& data, char major = 1) {
  std::string out("\x93NUMPY", 6);
  out += {major, '\0', static_cast<char>(header.size()), '\0'};
  if (major > 1) out += std::string(2, '\0');
  return out + header + data;
}

TEST(Npy, ReadsItsVersionsAndRefusesTheRest) {
  const TempFolder folder;
  const Tensor t = random_tensor("t", ElementType::kFloat64, {2, 3});
  write_bytes(folder / "array.npy", npy_bytes(t));
  expect_all(*golden::open_tensor_file(folder / "array.npy"), {{"array", t}});
  const std::string data(8, '\0');
  const auto refused = [&](const std::string& header) {
    return refusal_of(npy_with(header, data));
  };
  EXPECT_EQ(refused("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }"), "");
  EXPECT_EQ(refused("{'shape': (2,), 'descr': \"<f4\", 'fortran_order': False}\n"), "");
  EXPECT_EQ(
      refusal_of(npy_with("{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}", data, 2)), "");
  EXPECT_THAT(refusal_of(npy_with("{}", data, 9)), HasSubstr("version 1, 2 or 3"));
  EXPECT_THAT(refused("{'descr': '<f4', 'fortran_order': True, 'shape': (2,)}"),
              HasSubstr("ascontiguousarray"));
  EXPECT_THAT(refused("{'descr': '>f4', 'fortran_order': False, 'shape': (2,)}"),
              HasSubstr("big-endian"));
  EXPECT_THAT(refused("{'descr': '<q9', 'fortran_order': False, 'shape': (2,)}"),
              HasSubstr("unknown"));
  EXPECT_THAT(refused("{'descr': [('x', '<f4')], 'fortran_order': False, 'shape': (2,)}"),
              HasSubstr("structured"));
  EXPECT_THAT(refused("{'descr': '<f4', 'fortran_order': False, 'shape': (3,)}"),
              HasSubstr("does not fit"));
  EXPECT_THAT(refused("{'descr': '<f4', 'fortran_order': False, 'shape': (-2,)}"),
              HasSubstr("no length"));
  EXPECT_THAT(
      refused("{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296,4)}"),
      HasSubstr("does not fit"));
  EXPECT_THAT(refused("{'descr': '<f4', 'fortran_order': False}"), HasSubstr("lacks"));
  EXPECT_THAT(refused("{'descr': '<f4', 'fortran_order': Maybe, 'shape': (2,)}"),
              HasSubstr("neither"));
  EXPECT_THAT(refused("{'descr': '<f4', 'fortran_order': False, 'shape': (2,)} more"),
              HasSubstr("goes on"));
}

TEST(Npz, RefusesADamagedChecksum) {
  const TempFolder folder;
  write_npz(folder / "f", {{"a", random_tensor("a", ElementType::kFloat32, {64})}}, false);
  std::string bytes = read_bytes(folder / "f");
  const std::size_t data = bytes.find("\x93NUMPY") + 200;
  bytes[data] = static_cast<char>(bytes[data] ^ 1);
  write_bytes(folder / "f", bytes);
  EXPECT_NE(refusal(folder / "f"), "");
}

std::string some_gguf() {
  return gguf_bytes({{"general.architecture", "llama"},
                     {"llama.block_count", 2},
                     {"llama.rope.freq_base", 5000.0},
                     {"tokenizer.ggml.tokens", {"a", "bc", "def"}},
                     {"flags", {true, false}}},
                    {{"b", {2, {64, 2}, std::string(72, 'q')}},
                     // The last: its bytes are whole units of the alignment, nothing follows.
                     {"c", gguf_dense(random_tensor("c", ElementType::kFloat32, {3, 8}))}});
}

TEST(Gguf, ReadsTensorsAndMetadata) {
  const TempFolder folder;
  write_bytes(folder / "f", some_gguf());
  const auto file = golden::open_gguf(folder / "f");
  EXPECT_EQ(file->read("c"), random_tensor("c", ElementType::kFloat32, {3, 8}));
  EXPECT_EQ(file->entry("b").encoding, QuantEncoding::kQ4_0);
  EXPECT_EQ(file->entry("b").shape, (Shape{2, 36}));
  EXPECT_EQ(file->metadata()["llama.block_count"], 2);
  EXPECT_EQ(file->metadata()["llama.rope.freq_base"], 5000.0);
  EXPECT_EQ(file->metadata()["flags"], (nlohmann::json{true, false}));
  EXPECT_FALSE(file->metadata().contains("tokenizer.ggml.tokens"));
}

TEST(Gguf, RefusesMalformedHeaders) {
  std::string bytes = some_gguf();
  const auto changed = [&](std::size_t at, const std::string& by) {
    std::string copy = bytes;
    copy.replace(at, by.size(), by);
    return refusal_of(copy);
  };
  EXPECT_THAT(changed(4, std::string("\x01\0\0\0", 4)), HasSubstr("version"));
  EXPECT_THAT(changed(4, std::string("\0\0\0\x03", 4)), HasSubstr("version"));  // big-endian
  EXPECT_THAT(changed(8, std::string(8, '\xff')), HasSubstr("more keys or tensors"));
  EXPECT_THAT(changed(16, std::string(8, '\x7f')), HasSubstr("more keys or tensors"));
  EXPECT_THAT(changed(24, std::string(8, '\x7f')), HasSubstr("a text is"));
  const auto tensor = [](GgufTensor t) {
    return refusal_of(gguf_bytes(nlohmann::json::object(), {{"t", t}}));
  };
  EXPECT_THAT(tensor({99, {4}, std::string(16, 'x')}), HasSubstr("tensor type 99"));
  EXPECT_THAT(tensor({2, {33}, std::string(16, 'x')}), HasSubstr("do not fit"));
  EXPECT_THAT(tensor({0, {1ULL << 40, 1ULL << 40}, ""}), HasSubstr("do not fit"));
  EXPECT_THAT(tensor({0, {1, 1, 1, 1, 1}, "xxxx"}), HasSubstr("5 axes"));
  EXPECT_THAT(tensor({0, {1000}, std::string(16, 'x')}), HasSubstr("do not fit"));
  EXPECT_THAT(tensor({0, {16}, std::string(16, 'x')}), HasSubstr("beyond the end"));
  EXPECT_THAT(refusal_of(gguf_bytes({{"general.alignment", 24}}, {})), HasSubstr("power of two"));
}

/// Truncations at every length and random bit flips, the header first. The readers may refuse or
/// read other values; they must do no more than that.
void fuzz(const std::string& bytes, const std::string& name) {
  const TempFolder folder;
  const std::string path = folder / name;
  // Slack: the cursor's buffer, a message, a page of JSON nodes.
  const std::size_t allowed = 64 * bytes.size() + (std::size_t{1} << 20);
  reset_largest_allocation();
  for (std::size_t length = 0; length < bytes.size(); ++length) {
    write_bytes(path, std::string_view(bytes).substr(0, length));
    EXPECT_NE(refusal(path), "") << "cut to " << length << " bytes";
  }
  const RandomStream random(3, name);
  constexpr std::uint64_t kFlips = 1500;
  std::size_t refused = 0;
  for (std::uint64_t i = 0; i < kFlips; ++i) {
    std::string damaged = bytes;
    const std::uint64_t flips = 1 + random.below(4 * i, 3);
    for (std::uint64_t j = 0; j < flips; ++j) {
      const std::uint64_t bit = random.below(4 * i + 1 + j, 8 * bytes.size());
      damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << (bit % 8)));
    }
    write_bytes(path, damaged);
    if (!refusal(path).empty()) ++refused;
  }
  EXPECT_GT(refused, kFlips / 10);
  EXPECT_LT(largest_allocation(), allowed);
}

TEST(Fuzz, Safetensors) { fuzz(safetensors_bytes(some_tensors()), "safetensors"); }
TEST(Fuzz, Npy) { fuzz(npy_bytes(random_tensor("t", ElementType::kFloat32, {5})), "npy"); }
TEST(Fuzz, Gguf) { fuzz(some_gguf(), "gguf"); }
TEST(Fuzz, Npz) {
  for (const bool deflate : {false, true}) {
    const TempFolder folder;
    write_npz(folder / "f",
              {{"a", random_tensor("a", ElementType::kFloat32, {9})},
               {"b", random_tensor("b", ElementType::kFloat16, {2, 3})}},
              deflate);
    fuzz(read_bytes(folder / "f"), deflate ? "deflated" : "stored");
  }
}

TEST(Fuzz, TheProgramSaysOneLineAndReturnsThree) {
  const TempFolder folder;
  write_bytes(folder / "cut.safetensors", safetensors_bytes(some_tensors()).substr(0, 300));
  const Ran dump = run({"golden", "import", "--tensors", folder / "cut.safetensors", "--map",
                        "q=a,k=a,v=a", "-o", folder / "o.h5"});
  EXPECT_EQ(dump.code, 3);
  EXPECT_EQ(std::count(dump.err.begin(), dump.err.end(), '\n'), 1) << dump.err;
  for (const std::string& model : {folder / "absent", folder / "cut.safetensors", folder.path()}) {
    const Ran ran = run({"golden", "import", "--model", model, "-o", folder / "o.h5"});
    EXPECT_EQ(ran.code, 3) << ran.err;
    EXPECT_EQ(std::count(ran.err.begin(), ran.err.end(), '\n'), 1) << ran.err;
  }
  EXPECT_FALSE(std::filesystem::exists(folder / "o.h5"));
}

}  // namespace
}  // namespace attn::test
