#include "golden/golden_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "golden/atomic_write.h"
#include "golden/second_evaluation.h"
#include "tests/golden/golden_test_util.h"

namespace attn::golden {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

GoldenFile repository_file(const std::string& name) { return read(ATTN_SOURCE_DIR + name); }

TEST(Read, EveryVector) {
  EXPECT_GE(all_vectors().size(), 74U);
  for (const std::string& path : all_vectors()) {
    SCOPED_TRACE(path);
    const GoldenFile file = read(path);
    const Case c = to_case(file, {});
    const Trace stages = expected(file, c);
    const auto count = std::count_if(all_stages().begin(), all_stages().end(),
                                     [&](Stage stage) { return stages.has(stage); });
    EXPECT_GE(count, 2);
    EXPECT_EQ(c.id, std::filesystem::path(path).stem());
  }
}

TEST(Read, FromSeveralThreadsAtOnce) {
#ifdef __SANITIZE_ADDRESS__
  // Its allocator locks are not released in a process forked from a program with several threads:
  // about one child in forty of a bare malloc-and-fork loop hangs, none without the sanitizer.
  GTEST_SKIP() << "AddressSanitizer cannot fork beside threads that allocate";
#endif
  const std::string path = files_in("/data/golden").front();
  const GoldenFile file = read(path);
  std::vector<std::thread> threads;
  std::vector<int> equal(4);
  threads.reserve(equal.size());
  for (int& result : equal) {
    threads.emplace_back([&] {
      for (int i = 0; i < 5; ++i) result += read(path).datasets == file.datasets ? 1 : 0;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(equal, testing::Each(5));
}

/// Digests computed once by hashlib over h5py's arrays.
TEST(Digest, EqualsAnIndependentComputation) {
  EXPECT_EQ(content_sha256(repository_file("/data/golden/qk-norm.h5")),
            "f9b02cef107e51b44fa48f7f4a07d4eb50ce6a0292242a88ea99f85f360d481c");
  EXPECT_EQ(content_sha256(repository_file("/data/golden/mqa-decode-f16.h5")),
            "d8eb86b2f023e7480c4f76a3c9d73341112567d8c00a3a3c99649d8217bf5ff4");
  // Has scalars and the narrow types.
  EXPECT_EQ(content_sha256(repository_file("/data/golden/nvfp4-weights.h5")),
            "e3b2c0e05eabfbe544da763282f9a03860d4b09cb9df3afd99a524a0627c5512");
  // The published digest of no bytes.
  EXPECT_EQ(dataset_sha256(Tensor(ElementType::kFloat32, {0, 4})),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

TEST(Write, SameBytesTwiceAndTheSameContentForEveryVector) {
  const TemporaryFolder folder;
  for (const std::string& path : all_vectors()) {
    SCOPED_TRACE(path);
    const GoldenFile file = read(path);
    const Case c = to_case(file, {});
    const GoldenFile made = make(c, expected(file, c), {});
    EXPECT_EQ(made.datasets, file.datasets);
    write(made, folder / "one.h5", true);
    write(made, folder / "two.h5", true);
    EXPECT_EQ(bytes_of(folder / "one.h5"), bytes_of(folder / "two.h5"));
    const GoldenFile again = read(folder / "one.h5");
    EXPECT_EQ(again.datasets, file.datasets);
    EXPECT_EQ(again.config_json, to_json(c.config));
    EXPECT_EQ(again.seal, Seal::kSealed);
    EXPECT_EQ(again.content_sha256, made.content_sha256);
  }
}

/// Any bits of any type come back, NaN payloads and negative zeros too.
TEST(Write, EveryElementTypeAndShape) {
  const TemporaryFolder folder;
  GoldenFile file = repository_file("/data/golden/core-null-mask.h5");
  file.seal = Seal::kSealed;
  for (const ElementType type :
       {ElementType::kFloat64, ElementType::kFloat32, ElementType::kFloat16, ElementType::kBFloat16,
        ElementType::kFloat8E4M3FN, ElementType::kFloat8E4M3FNUZ, ElementType::kFloat8E5M2,
        ElementType::kFloat4E2M1FN, ElementType::kFloat8E8M0FNU, ElementType::kInt64,
        ElementType::kInt32, ElementType::kUInt32, ElementType::kUInt8}) {
    const std::string name = "weights/" + std::string(element_name(type));
    for (const Shape& shape : {Shape{}, Shape{0, 3}, Shape{256}, Shape{2, 3, 4, 5}}) {
      Tensor tensor(type, shape);
      std::uint64_t bits = 0x9e3779b97f4a7c15;  // any odd constant walks through all patterns
      for (std::byte& b : tensor.bytes()) {
        b = static_cast<std::byte>(bits >> 56);
        bits += 0x9e3779b97f4a7c15;
      }
      file.datasets[name + "_" + std::to_string(shape.size())] = tensor;
    }
  }
  write(file, folder / "types.h5", false);
  EXPECT_EQ(read(folder / "types.h5").datasets, file.datasets);
}

TEST(Write, UnsealedOnRequest) {
  const TemporaryFolder folder;
  GoldenFile file = sealed_copy("core-null-mask.h5");
  file.seal = Seal::kUnsealed;
  write(file, folder / "unsealed.h5", false);
  const GoldenFile again = read(folder / "unsealed.h5");
  EXPECT_EQ(again.seal, Seal::kUnsealed);
  EXPECT_EQ(again.content_sha256, "");
  EXPECT_EQ(again.datasets, file.datasets);
}

TEST(Write, AnEmptyCaseIdBecomesTheFilesName) {
  const TemporaryFolder folder;
  GoldenFile file = sealed_copy("core-null-mask.h5");
  file.case_id.clear();
  write(file, folder / "my-case.h5", false);
  EXPECT_EQ(read(folder / "my-case.h5").case_id, "my-case");
}

TEST(Write, OverwritesOnlyWithForce) {
  const TemporaryFolder folder;
  const std::string path = folder / "file.h5";
  put_bytes(path, "precious");
  const GoldenFile file = sealed_copy("core-null-mask.h5");
  EXPECT_THAT(refusal(path, ErrorKind::kUsage, [&] { write(file, path, false); }),
              HasSubstr("--force"));
  EXPECT_EQ(bytes_of(path), "precious");
  write(file, path, true);
  EXPECT_EQ(read(path).datasets, file.datasets);
  EXPECT_THAT(folder.list(), ElementsAre("file.h5"));
}

TEST(Write, AFileThatAppearsMeanwhileStays) {
  const TemporaryFolder folder;
  const std::string path = folder / "file.h5";
  const auto produce = [](const std::string& temporary) { put_bytes(temporary, "new"); };
  const auto meanwhile = [&](const std::string&) { put_bytes(path, "theirs"); };
  refusal(path, ErrorKind::kUsage, [&] { write_atomically(path, false, produce, meanwhile); });
  EXPECT_EQ(bytes_of(path), "theirs");
  EXPECT_THAT(folder.list(), ElementsAre("file.h5"));
}

TEST(Write, LeavesNothingBehindWhenItFails) {
  const TemporaryFolder folder;
  const std::string path = folder / "file.h5";
  struct Interrupt {};
  const auto produce = [](const std::string& temporary) { put_bytes(temporary, "half"); };
  const auto interrupt = [](const std::string&) { throw Interrupt(); };
  EXPECT_THROW(write_atomically(path, false, interrupt, interrupt), Interrupt);
  EXPECT_THROW(write_atomically(path, false, produce, interrupt), Interrupt);
  EXPECT_THAT(folder.list(), IsEmpty());

  const GoldenFile file = sealed_copy("core-null-mask.h5");
  refusal(folder / "no/folder.h5", ErrorKind::kUsage,
          [&] { write(file, folder / "no/folder.h5", false); });
  refusal(folder / ".", ErrorKind::kUsage, [&] { write(file, folder / ".", true); });
  GoldenFile unreadable = file;
  unreadable.case_id = "two\nlines";  // read() refuses it, so verification must
  EXPECT_THROW(write(unreadable, path, false), Error);
  EXPECT_THAT(folder.list(), IsEmpty());
}

class Epoch : public testing::Test {
 protected:
  void TearDown() override { unsetenv("SOURCE_DATE_EPOCH"); }
  static std::string provenance(const char* epoch) {
    setenv("SOURCE_DATE_EPOCH", epoch, 1);
    const Case c = to_case(repository_file("/data/golden/core-null-mask.h5"), {});
    WriteOptions options;
    options.command_line = "attn-compare golden make -o \xff";  // not UTF-8
    options.seed = std::numeric_limits<std::uint64_t>::max();
    return make(c, {}, options).provenance_json;
  }
};

TEST_F(Epoch, FixesTheDate) {
  const std::string text = provenance("1700000000");
  EXPECT_THAT(text, HasSubstr("\"date\":\"2023-11-14T22:13:20Z\""));
  EXPECT_THAT(text, HasSubstr("\"seed\":18446744073709551615"));
  for (const char* key :
       {"generator", "precision", "version", "git_commit", "git_dirty", "compiler",
        "compiler_flags", "eigen", "hdf5", "openssl", "cpu", "command_line", "semantics_version"}) {
    EXPECT_THAT(text, HasSubstr(std::string(key) + "\":"));
  }
  EXPECT_EQ(text, provenance("1700000000"));
}

TEST_F(Epoch, MustBeANumber) {
  for (const char* epoch : {"", "yesterday", "17e8", "99999999999999999999"}) {
    EXPECT_THROW(provenance(epoch), Error) << epoch;
  }
}

/// One dataset (or the config) of a good file changed in memory; to_case names it.
class Malformed : public testing::Test {
 protected:
  void expect_refused(const std::string& where, const std::string& why,
                      const std::optional<Tensor>& replacement) {
    SCOPED_TRACE(where);
    GoldenFile file = file_;
    file.datasets.erase(where);
    if (replacement) file.datasets[where] = *replacement;
    const auto convert = [&] { expected(file, to_case(file, {})); };
    try {
      convert();
      ADD_FAILURE() << "accepted";
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), HasSubstr(file.path));
      EXPECT_THAT(error.what(), HasSubstr(why));
      EXPECT_TRUE(error.kind() == ErrorKind::kInput || error.kind() == ErrorKind::kConfig);
    }
  }
  Tensor with_type(const std::string& where, ElementType type) const {
    return Tensor(type, file_.datasets.at(where).shape());
  }

  GoldenFile file_ = repository_file("/data/golden/gqa-ragged-cache-bf16.h5");
};

TEST_F(Malformed, MissingDatasets) {
  for (const auto& [name, tensor] : file_.datasets) {
    if (name.starts_with("expected/")) continue;
    const std::string last = name.substr(name.find('/') + 1);
    expect_refused(name, last, std::nullopt);
  }
}

TEST_F(Malformed, WrongShapesAndTypes) {
  for (const auto& [name, tensor] : file_.datasets) {
    // Lengths and the tensors that they count can only contradict each other; either is named.
    const std::string last =
        name.starts_with("inputs/") ? "inputs/" : name.substr(name.find('/') + 1);
    Shape longer = tensor.shape();
    longer[0] += 1;
    const bool longer_is_fine = name == "inputs/freqs_cis";
    if (!longer_is_fine) expect_refused(name, last, Tensor(tensor.type(), longer));
    Shape flat = {tensor.size(), 1};
    expect_refused(name, last, Tensor(tensor.type(), flat));
    expect_refused(name, last, Tensor(tensor.type(), {}));
    expect_refused(name, last, with_type(name, ElementType::kUInt8));
  }
}

TEST_F(Malformed, LengthsThatDoNotFit) {
  const std::vector<double> decreasing = {0, 9, 3, 13};
  expect_refused("inputs/input_row_offsets", "input_row_offsets",
                 Tensor::from_values(ElementType::kUInt32, {4}, decreasing));
  const std::vector<double> beyond = {0, 1, 2, 4294967295.0};
  expect_refused("inputs/input_row_offsets", "input_row_offsets",
                 Tensor::from_values(ElementType::kUInt32, {4}, beyond));
  const std::vector<double> many = {4294967295.0, 4294967295.0, 4294967295.0};
  expect_refused("inputs/cache_lengths", "cache/k",
                 Tensor::from_values(ElementType::kUInt32, {3}, many));
}

TEST_F(Malformed, Configs) {
  const auto refused = [&](const std::string& from, const std::string& to) {
    GoldenFile file = file_;
    const std::size_t at = file.config_json.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    file.config_json.replace(at, from.size(), to);
    try {
      to_case(file, {});
      ADD_FAILURE() << "accepted " << to;
      return std::string();
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), HasSubstr(file.path));
      return std::string(error.what());
    }
  };
  EXPECT_THAT(refused("{", ""), HasSubstr("config"));
  EXPECT_THAT(refused("\"stacked_qkv\"", "\"stacked_qvk\""), HasSubstr("stacked_qvk"));
  EXPECT_THAT(refused("\"num_attention_heads\": 8", "\"num_attention_heads\": 9"),
              HasSubstr("num_attention_heads"));
  EXPECT_THAT(refused("\"page_size\": 16", "\"page_size\": 4611686018427387904"),
              HasSubstr("page_size"));
  // Legal, but nothing except the pool's size depends on it, and it must not decide how much memory
  // is taken.
  EXPECT_THAT(refused("\"page_size\": 16", "\"page_size\": 1048576"),
              HasSubstr("far larger than the file"));
}

}  // namespace
}  // namespace attn::golden
