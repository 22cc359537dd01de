#include <zip.h>

#include <memory>

#include "golden/import/byte_file.h"
#include "golden/import/npy.h"
#include "golden/import/tensor_file.h"

namespace attn::golden {
namespace {

/// Deflate cannot make more than this out of a byte.
constexpr std::uint64_t kMaxInflation = 1032;
constexpr zip_int64_t kMostEntries = 100'000;

struct CloseArchive {
  void operator()(zip_t* archive) const { zip_discard(archive); }
};
struct CloseEntry {
  void operator()(zip_file_t* entry) const { zip_fclose(entry); }
};
using Entry = std::unique_ptr<zip_file_t, CloseEntry>;

std::string zip_message(int code) {
  zip_error_t error;
  zip_error_init_with_code(&error, code);
  std::string text = zip_error_strerror(&error);
  zip_error_fini(&error);
  return text;
}

class NpzFile : public TensorFile {
 public:
  explicit NpzFile(const std::string& path) : TensorFile(path) {
    const ByteFile checked(path);  // a regular file that can be read
    int code = 0;
    archive_.reset(zip_open(path.c_str(), ZIP_RDONLY, &code));
    if (!archive_) refuse_file(path, "", "is no readable zip archive: " + zip_message(code));
    const zip_int64_t count = zip_get_num_entries(archive_.get(), 0);
    if (count > kMostEntries) refuse_file(path, "", "holds more than 100,000 arrays");
    for (zip_int64_t i = 0; i < count; ++i) add_entry(static_cast<zip_uint64_t>(i), checked.size());
  }

 private:
  void add_entry(zip_uint64_t index, std::uint64_t file_bytes) {
    zip_stat_t status;
    zip_stat_init(&status);
    constexpr zip_uint64_t kNeeded = ZIP_STAT_NAME | ZIP_STAT_SIZE | ZIP_STAT_COMP_SIZE;
    if (zip_stat_index(archive_.get(), index, 0, &status) != 0 ||
        (status.valid & kNeeded) != kNeeded) {
      refuse_file(path_, "entry " + std::to_string(index), "has no name or size");
    }
    std::string name = status.name;
    if (!name.ends_with(".npy")) {
      refuse_file(path_, name, "is no .npy array; this is no npz file");
    }
    name.resize(name.size() - 4);
    if (status.comp_size > file_bytes || status.size / kMaxInflation > status.comp_size) {
      refuse_file(path_, name,
                  "claims " + std::to_string(status.size) + " bytes out of " +
                      std::to_string(status.comp_size) + "; the file is damaged");
    }
    const Entry entry = open_entry(index, name);
    StoredTensor stored = read_npy_header(
        path_, name, status.size,
        [&](std::span<std::byte> out, const std::string&) { read_some(entry.get(), out, name); });
    if (!tensors_.emplace(name, std::move(stored)).second) {
      refuse_file(path_, name, "is in the archive twice");
    }
    index_of_[name] = index;
  }

  Entry open_entry(zip_uint64_t index, const std::string& name) const {
    Entry entry(zip_fopen_index(archive_.get(), index, 0));
    if (!entry) {
      refuse_file(path_, name, std::string("cannot be unpacked: ") + zip_strerror(archive_.get()));
    }
    return entry;
  }

  void read_some(zip_file_t* entry, std::span<std::byte> out, const std::string& name) const {
    while (!out.empty()) {
      const zip_int64_t got = zip_fread(entry, out.data(), out.size());
      if (got <= 0) {
        refuse_file(path_, name,
                    got < 0 ? std::string("cannot be unpacked: ") + zip_file_strerror(entry)
                            : "ends too early; the file is damaged");
      }
      out = out.subspan(static_cast<std::size_t>(got));
    }
  }

  void read_bytes(const std::string& name, const StoredTensor& stored,
                  Tensor& tensor) const override {
    const Entry entry = open_entry(index_of_.at(name), name);
    std::vector<std::byte> header(stored.offset);
    read_some(entry.get(), header, name);
    read_some(entry.get(), tensor.bytes(), name);
    // At its end the library compares the checksum.
    std::byte beyond{};
    if (zip_fread(entry.get(), &beyond, 1) != 0) {
      refuse_file(path_, name, "its checksum is wrong; the file is damaged");
    }
  }

  std::unique_ptr<zip_t, CloseArchive> archive_;
  std::map<std::string, zip_uint64_t> index_of_;
};

}  // namespace

std::unique_ptr<TensorFile> open_npz(const std::string& path) {
  return std::make_unique<NpzFile>(path);
}

}  // namespace attn::golden
