// Files that no honest program writes. Each is refused with one line that names the file and, where
// there is one, the dataset; none makes the reader crash or allocate what it claims.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <hdf5.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <string>
#include <vector>

#include "tests/golden/golden_test_util.h"

namespace attn::golden {
namespace {

using testing::HasSubstr;

void put_text(hid_t object, const char* name, const std::string& text) {
  const hid_t type = H5Tcopy(H5T_C_S1);
  H5Tset_size(type, text.size() + 1);
  const hid_t space = H5Screate(H5S_SCALAR);
  const hid_t attribute = H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
  H5Awrite(attribute, type, text.c_str());
  H5Aclose(attribute);
  H5Sclose(space);
  H5Tclose(type);
}

void put_int(hid_t object, const char* name, std::int64_t value) {
  const hid_t space = H5Screate(H5S_SCALAR);
  const hid_t attribute = H5Acreate2(object, name, H5T_STD_I64LE, space, H5P_DEFAULT, H5P_DEFAULT);
  H5Awrite(attribute, H5T_NATIVE_INT64, &value);
  H5Aclose(attribute);
  H5Sclose(space);
}

/// A dataset without data; properties and type may be anything.
void put_dataset(hid_t file, const char* path, hid_t type, const std::vector<hsize_t>& dims,
                 hid_t creation = H5P_DEFAULT, const void* data = nullptr) {
  const hid_t links = H5Pcreate(H5P_LINK_CREATE);
  H5Pset_create_intermediate_group(links, 1);
  const hid_t space = H5Screate_simple(static_cast<int>(dims.size()), dims.data(), nullptr);
  const hid_t dataset = H5Dcreate2(file, path, type, space, links, creation, H5P_DEFAULT);
  ASSERT_GE(dataset, 0) << path;
  if (data != nullptr) H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data);
  H5Dclose(dataset);
  H5Sclose(space);
  H5Pclose(links);
}

class Hostile : public testing::Test {
 protected:
  /// A file with the root attributes of an honest one, then whatever `fill` does.
  std::string make_file(const std::function<void(hid_t)>& fill, bool with_attributes = true) {
    std::string path = folder_ / "hostile.h5";
    const hid_t file = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    if (with_attributes) {
      put_text(file, "format", "attention-golden");
      put_int(file, "format_version", 1);
      put_text(file, "case_id", "hostile");
      put_text(file, "config", "{}");
      put_text(file, "provenance", "{}");
    }
    fill(file);
    H5Fclose(file);
    return path;
  }

  void expect_refused(const std::string& why, const std::function<void(hid_t)>& fill) {
    EXPECT_THAT(read_refusal(make_file(fill)), HasSubstr(why));
  }

  /// The same, starting from a good sealed file.
  void expect_tampering_refused(const std::string& why, const std::function<void(hid_t)>& change) {
    const std::string path = folder_ / "tampered.h5";
    write(sealed_copy("core-zero-keys-sinks.h5"), path, true);
    EXPECT_EQ(read(path).seal, Seal::kSealed);
    const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDWR, H5P_DEFAULT);
    change(file);
    H5Fclose(file);
    EXPECT_THAT(read_refusal(path), HasSubstr(why));
  }

  TemporaryFolder folder_;
};

TEST_F(Hostile, NotAFileAtAll) {
  EXPECT_THAT(read_refusal(folder_ / "missing.h5"), HasSubstr("No such file"));
  EXPECT_THAT(read_refusal(folder_ / "."), HasSubstr("not a regular file"));
  const std::string fifo = folder_ / "fifo";
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  EXPECT_THAT(read_refusal(fifo), HasSubstr("not a regular file"));
  EXPECT_FALSE(is_hdf5(fifo));
  EXPECT_THAT(read_refusal("/dev/zero"), HasSubstr("not a regular file"));
}

TEST_F(Hostile, NotHdf5) {
  const std::string path = folder_ / "file";
  for (const std::string& bytes : {std::string(), std::string("text\n"), std::string("\x89HDF")}) {
    put_bytes(path, bytes);
    EXPECT_FALSE(is_hdf5(path));
    EXPECT_THAT(read_refusal(path), HasSubstr("not an HDF5 file"));
  }
  put_bytes(path, "\x89HDF\r\n\x1a\n");
  EXPECT_TRUE(is_hdf5(path));
  EXPECT_THAT(read_refusal(path), HasSubstr("not a readable HDF5 file"));
}

TEST_F(Hostile, RootAttributes) {
  EXPECT_THAT(read_refusal(make_file([](hid_t) {}, false)), HasSubstr("format: is missing"));
  const auto with = [&](const char* format, std::int64_t version) {
    return read_refusal(make_file(
        [&](hid_t file) {
          put_text(file, "format", format);
          put_int(file, "format_version", version);
        },
        false));
  };
  EXPECT_THAT(with("something-else", 1), HasSubstr("must be \"attention-golden\""));
  EXPECT_THAT(with("attention-golden", 2), HasSubstr("format_version: is 2"));
  EXPECT_THAT(with("attention-golden", 0), HasSubstr("format_version: is 0"));
  EXPECT_THAT(with("attention-golden", 1), HasSubstr("case_id: is missing"));
  expect_refused("config: must be one string", [](hid_t file) {
    H5Adelete(file, "config");
    put_int(file, "config", 1);
  });
  expect_refused("case_id", [](hid_t file) {
    H5Adelete(file, "case_id");
    put_text(file, "case_id", "two\nlines");
  });
}

TEST_F(Hostile, AHugeAttribute) {
  // Longer than the file that claims to hold it: possible only where the bytes never were written.
  const std::string path = make_file([](hid_t file) {
    H5Adelete(file, "config");
    put_text(file, "config", std::string(60000, 'x'));
  });
  const std::string bytes = bytes_of(path);
  put_bytes(path, bytes.substr(0, bytes.size() / 2));
  read_refusal(path);
}

TEST_F(Hostile, Links) {
  expect_refused("inputs/x: is an external link", [](hid_t file) {
    H5Gclose(H5Gcreate2(file, "inputs", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    H5Lcreate_external("/etc/passwd", "/x", file, "inputs/x", H5P_DEFAULT, H5P_DEFAULT);
  });
  expect_refused("a: is a soft link", [](hid_t file) {
    H5Lcreate_soft("/b", file, "a", H5P_DEFAULT, H5P_DEFAULT);
    H5Lcreate_soft("/a", file, "b", H5P_DEFAULT, H5P_DEFAULT);
  });
  expect_refused("inputs/again: is a second link", [](hid_t file) {
    H5Gclose(H5Gcreate2(file, "inputs", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    H5Lcreate_hard(file, "/", file, "inputs/again", H5P_DEFAULT, H5P_DEFAULT);
  });
  expect_refused("nested too deeply", [](hid_t file) {
    std::string path;
    for (int depth = 0; depth < 40; ++depth) {
      path += "/g";
      H5Gclose(H5Gcreate2(file, path.c_str(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    }
  });
  expect_refused("inputs/t: is neither", [](hid_t file) {
    H5Gclose(H5Gcreate2(file, "inputs", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    const hid_t type = H5Tcopy(H5T_NATIVE_INT);
    H5Tcommit2(file, "inputs/t", type, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    H5Tclose(type);
  });
}

TEST_F(Hostile, DataInOtherFiles) {
  expect_refused("inputs/x: keeps its data in another file", [](hid_t file) {
    const hid_t creation = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_external(creation, "/etc/passwd", 0, 64);
    put_dataset(file, "inputs/x", H5T_STD_U8LE, {64}, creation);
    H5Pclose(creation);
  });
  expect_refused("inputs/x: is a virtual dataset", [](hid_t file) {
    const hid_t creation = H5Pcreate(H5P_DATASET_CREATE);
    const hsize_t dims[] = {64};
    const hid_t space = H5Screate_simple(1, dims, nullptr);
    H5Pset_virtual(creation, space, "/etc/passwd", "/x", space);
    put_dataset(file, "inputs/x", H5T_STD_U8LE, {64}, creation);
    H5Sclose(space);
    H5Pclose(creation);
  });
}

TEST_F(Hostile, AbsurdSizes) {
  const hsize_t huge = hsize_t{1} << 60;
  const auto chunked = [](std::vector<hsize_t> chunk) {
    const hid_t creation = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_chunk(creation, static_cast<int>(chunk.size()), chunk.data());
    return creation;
  };
  expect_refused("inputs/x: was never written",
                 [&](hid_t file) { put_dataset(file, "inputs/x", H5T_STD_U8LE, {huge}); });
  expect_refused("inputs/x: shape [1152921504606846976, 16] has more than 2^63", [&](hid_t file) {
    put_dataset(file, "inputs/x", H5T_IEEE_F32LE, {huge, 16}, chunked({1, 16}));
  });
  expect_refused("inputs/x: shape [1152921504606846976, 4] has more than 2^64", [&](hid_t file) {
    put_dataset(file, "inputs/x", H5T_IEEE_F32LE, {huge, 4}, chunked({1, 4}));
  });
  expect_refused("9 axes", [&](hid_t file) {
    put_dataset(file, "inputs/x", H5T_STD_U8LE, std::vector<hsize_t>(9, 1));
  });
  // One chunk written, 2^40 elements claimed.
  expect_refused("inputs/x: is larger than 64 times the file", [&](hid_t file) {
    put_dataset(file, "inputs/x", H5T_STD_U8LE, {16}, chunked({16}), "0123456789abcdef");
    H5Ldelete(file, "inputs/x", H5P_DEFAULT);
    const hsize_t dims[] = {16};
    const hsize_t limit[] = {H5S_UNLIMITED};
    const hid_t space = H5Screate_simple(1, dims, limit);
    const hid_t dataset =
        H5Dcreate2(file, "inputs/x", H5T_STD_U8LE, space, H5P_DEFAULT, chunked({16}), H5P_DEFAULT);
    H5Dwrite(dataset, H5T_STD_U8LE, H5S_ALL, H5S_ALL, H5P_DEFAULT, "0123456789abcdef");
    const hsize_t claimed[] = {hsize_t{1} << 40};
    H5Dset_extent(dataset, claimed);
    H5Dclose(dataset);
    H5Sclose(space);
  });
}

TEST_F(Hostile, CompressedBombs) {
  const std::vector<char> zeros(std::size_t{16} << 20);
  const auto compressed = [&](hid_t file, hsize_t chunk) {
    const hid_t creation = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_chunk(creation, 1, &chunk);
    H5Pset_deflate(creation, 9);
    put_dataset(file, "inputs/x", H5T_STD_U8LE, {zeros.size()}, creation, zeros.data());
    H5Pclose(creation);
  };
  expect_refused("inputs/x: is larger than 64 times the file",
                 [&](hid_t file) { compressed(file, 4096 * 16); });
  expect_refused("inputs/x: has chunks larger than 64 times the file",
                 [&](hid_t file) { compressed(file, zeros.size()); });
  expect_refused("inputs/x: uses filter 4", [&](hid_t file) {
    const hid_t creation = H5Pcreate(H5P_DATASET_CREATE);
    const hsize_t chunk = 1024;
    H5Pset_chunk(creation, 1, &chunk);
    H5Pset_szip(creation, H5_SZIP_NN_OPTION_MASK, 8);
    put_dataset(file, "inputs/x", H5T_STD_U8LE, {1024}, creation, zeros.data());
    H5Pclose(creation);
  });
}

TEST_F(Hostile, TypesThatAreNotTheFormats) {
  const std::vector<double> data(64);
  const auto refuse = [&](const std::string& why, hid_t type, const char* dtype = "") {
    expect_refused(why, [&](hid_t file) {
      put_dataset(file, "inputs/x", type, {4}, H5P_DEFAULT, data.data());
      if (*dtype == '\0') return;
      const hid_t dataset = H5Dopen2(file, "inputs/x", H5P_DEFAULT);
      put_text(dataset, "dtype", dtype);
      H5Dclose(dataset);
    });
  };
  refuse("inputs/x: its type is not a little-endian", H5T_IEEE_F32BE);
  refuse("inputs/x: its type is not a little-endian", H5T_STD_U64LE);
  const hid_t compound = H5Tcreate(H5T_COMPOUND, 16);
  H5Tinsert(compound, "a", 0, H5T_NATIVE_DOUBLE);
  refuse("inputs/x: its type is not a little-endian", compound);
  H5Tclose(compound);
  refuse("inputs/x: its type uint16 is not one of the format", H5T_STD_U16LE);
  refuse("its type bfloat61 is not one of the format", H5T_STD_U16LE, "bfloat61");
  refuse("its dtype attribute says float32 but it is stored as uint16", H5T_STD_U16LE, "float32");
  refuse("its dtype attribute says int32 but it is stored as float32", H5T_IEEE_F32LE, "int32");
}

TEST_F(Hostile, UnknownDatasetsAndAttributesOfAnUnsealedFileAreIgnored) {
  const std::string path = make_file([](hid_t file) {
    put_text(file, "mood", "good");
    const std::vector<double> data(4);
    put_dataset(file, "notes/big_endian", H5T_IEEE_F32BE, {4}, H5P_DEFAULT, data.data());
    put_dataset(file, "inputs/later", H5T_STD_U64LE, {4}, H5P_DEFAULT, data.data());
    put_dataset(file, "notes/readable", H5T_IEEE_F64LE, {4}, H5P_DEFAULT, data.data());
  });
  const GoldenFile file = read(path);
  EXPECT_EQ(file.seal, Seal::kUnsealed);
  EXPECT_FALSE(file.has("notes/big_endian"));
  EXPECT_FALSE(file.has("inputs/later"));
}

TEST_F(Hostile, ASealCoversEveryDatasetAndTheConfig) {
  const auto edit_dataset = [](hid_t file, const char* path,
                               const std::function<void(hid_t)>& edit) {
    const hid_t dataset = H5Dopen2(file, path, H5P_DEFAULT);
    edit(dataset);
    H5Dclose(dataset);
  };
  expect_tampering_refused("weights/sinks: its sha256 does not match", [&](hid_t file) {
    edit_dataset(file, "weights/sinks", [](hid_t dataset) {
      const float sinks[] = {1, 2, 3, 4};
      H5Dwrite(dataset, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, sinks);
    });
  });
  expect_tampering_refused("inputs/q: has no sha256 attribute", [&](hid_t file) {
    edit_dataset(file, "inputs/q", [](hid_t dataset) { H5Adelete(dataset, "sha256"); });
  });
  expect_tampering_refused("expected/extra: has no sha256 attribute", [](hid_t file) {
    put_dataset(file, "expected/extra", H5T_STD_U8LE, {1}, H5P_DEFAULT, "x");
  });
  expect_tampering_refused("content_sha256: does not match", [&](hid_t file) {
    put_dataset(file, "expected/extra", H5T_STD_U8LE, {1}, H5P_DEFAULT, "x");
    edit_dataset(file, "expected/extra", [](hid_t dataset) {
      put_text(dataset, "sha256",
               "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881");
    });
  });
  expect_tampering_refused("notes/strange: its type", [](hid_t file) {
    put_dataset(file, "notes/strange", H5T_STD_U64LE, {1}, H5P_DEFAULT, "xxxxxxxx");
  });
  expect_tampering_refused("content_sha256: does not match",
                           [](hid_t file) { H5Ldelete(file, "weights/sinks", H5P_DEFAULT); });
  expect_tampering_refused("content_sha256: does not match", [](hid_t file) {
    H5Lmove(file, "weights/sinks", file, "weights/thinks", H5P_DEFAULT, H5P_DEFAULT);
  });
  expect_tampering_refused("content_sha256: does not match", [](hid_t file) {
    H5Adelete(file, "config");
    put_text(file, "config", "{}");
  });
  expect_tampering_refused("has a sha256 attribute but the file has no content_sha256",
                           [](hid_t file) { H5Adelete(file, "content_sha256"); });
  expect_tampering_refused("content_sha256: does not match", [&](hid_t file) {
    // The same bytes read as another type.
    edit_dataset(file, "weights/sinks", [](hid_t dataset) { H5Adelete(dataset, "dtype"); });
    H5Ldelete(file, "weights/sinks", H5P_DEFAULT);
    const float sinks[] = {1, 2, 3, 4};
    put_dataset(file, "weights/sinks", H5T_STD_I32LE, {4}, H5P_DEFAULT, sinks);
    edit_dataset(file, "weights/sinks", [&](hid_t dataset) {
      Tensor as_read(ElementType::kInt32, {4});
      std::copy_n(reinterpret_cast<const std::byte*>(sinks), sizeof sinks, as_read.data());
      put_text(dataset, "sha256", dataset_sha256(as_read));
    });
  });
}

long peak_kib(int who) {
  rusage usage{};
  getrusage(static_cast<__rusage_who>(who), &usage);
  return usage.ru_maxrss;
}

/// Runs the refusal with little memory to spare: claims must not be believed before they are
/// checked.
TEST_F(Hostile, NothingLargeIsAllocated) {
  std::vector<std::string> files;
  const auto add = [&](const std::string& name, const std::function<void(hid_t)>& fill) {
    files.push_back(folder_ / name);
    std::filesystem::rename(make_file(fill), files.back());
  };
  add("huge.h5",
      [](hid_t file) { put_dataset(file, "inputs/x", H5T_STD_U8LE, {hsize_t{1} << 40}); });
  add("bomb.h5", [](hid_t file) {
    const std::vector<char> zeros(std::size_t{512} << 20);
    const hid_t creation = H5Pcreate(H5P_DATASET_CREATE);
    const hsize_t chunk = zeros.size();
    H5Pset_chunk(creation, 1, &chunk);
    H5Pset_deflate(creation, 1);
    put_dataset(file, "inputs/x", H5T_STD_U8LE, {zeros.size()}, creation, zeros.data());
    H5Pclose(creation);
  });
  for (const std::string& path : files) {
    SCOPED_TRACE(path);
    const pid_t child = fork();
    if (child == 0) {
      // A process of its own, so that its peak is not hidden by this one's.
      const long before = peak_kib(RUSAGE_SELF);
      int result = 1;
      try {
        read(path);
      } catch (const Error&) {
        result = 0;
      }
      const long peak = std::max(peak_kib(RUSAGE_SELF), peak_kib(RUSAGE_CHILDREN));
      _exit(result != 0 || peak > before + 128 * 1024 ? 1 : 0);
    }
    int status = 1;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
  }
}

}  // namespace
}  // namespace attn::golden
