#include "golden/golden_file.h"

#include <sys/stat.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <set>

#include "golden/digest.h"
#include "golden/raw_file.h"
#include "reference/core/error.h"

namespace attn::golden {
namespace {

[[noreturn]] void fail(const std::string& path, const std::string& where, const std::string& what) {
  throw Error(ErrorKind::kInput,
              printable(path) + ": " + (where.empty() ? "" : printable(where) + ": ") + what,
              where);
}

/// Length of a regular file; anything else (folder, pipe, device) is refused before it is opened.
std::uint64_t regular_file_size(const std::string& path) {
  struct stat info {};
  if (stat(path.c_str(), &info) != 0) fail(path, "", std::strerror(errno));
  if (!S_ISREG(info.st_mode)) fail(path, "", "is not a regular file");
  return static_cast<std::uint64_t>(info.st_size);
}

/// Length of the UTF-8 sequence at `text[i]`, 0 when it is not valid (overlong forms and surrogates
/// included).
std::size_t utf8_length(const std::string& text, std::size_t i) {
  const auto at = [&](std::size_t k) {
    return k < text.size() ? static_cast<unsigned char>(text[k]) : 0U;
  };
  const unsigned lead = at(i);
  if (lead < 0x80) return 1;
  const std::size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  if (lead < 0xc2 || lead > 0xf4) return 0;
  for (std::size_t k = 1; k < length; ++k) {
    if ((at(i + k) & 0xc0U) != 0x80U) return 0;
  }
  const unsigned second = at(i + 1);
  const bool overlong = (lead == 0xe0 && second < 0xa0) || (lead == 0xf0 && second < 0x90);
  const bool surrogate = lead == 0xed && second >= 0xa0;
  const bool too_large = lead == 0xf4 && second >= 0x90;
  return overlong || surrogate || too_large ? 0 : length;
}

bool is_control(char ch) { return static_cast<unsigned char>(ch) < 0x20 || ch == 0x7f; }

/// A dataset that this version of the format names, so that an unreadable one is an error.
bool is_known(const std::string& path) {
  if (path.starts_with("inputs/") || path.starts_with("cache/")) {
    static const std::set<std::string> kNames = {"inputs/x",
                                                 "inputs/q",
                                                 "inputs/input_row_offsets",
                                                 "inputs/cache_lengths",
                                                 "inputs/mask",
                                                 "inputs/freqs_cis",
                                                 "inputs/kv_lengths",
                                                 "cache/k",
                                                 "cache/v",
                                                 "cache/k_scale",
                                                 "cache/v_scale"};
    return kNames.count(path) != 0;
  }
  if (path.starts_with("weights/")) return true;
  for (const Stage stage : all_stages()) {
    if (path == "expected/" + std::string(name_of(stage))) return true;
  }
  return false;
}

void check_texts(const std::string& path, const RawFile& raw) {
  if (raw.case_id.empty() || raw.case_id != printable(raw.case_id)) {
    fail(path, "attribute case_id", "must be one line of UTF-8 text");
  }
  for (std::size_t i = 0; i < raw.provenance.size();) {
    const std::size_t length = utf8_length(raw.provenance, i);
    if (length == 0) fail(path, "attribute provenance", "is not UTF-8 text");
    i += length;
  }
}

/// Digests cover everything or the file is refused: one missing or extra would let a change in.
Seal check_seal(const std::string& path, const RawFile& raw) {
  const bool sealed = !raw.content_sha256.empty();
  std::map<std::string, DigestRow> rows;
  for (const auto& [name, dataset] : raw.datasets) {
    if (sealed && !dataset.problem.empty()) fail(path, name, dataset.problem);
    if (sealed && dataset.sha256.empty()) {
      fail(path, name, "has no sha256 attribute although the file is sealed");
    }
    if (!sealed && !dataset.sha256.empty()) {
      fail(path, name, "has a sha256 attribute but the file has no content_sha256");
    }
    if (!sealed) continue;
    const std::string digest = dataset_sha256(dataset.tensor);
    if (digest != dataset.sha256) {
      fail(path, name, "its sha256 does not match its content: the data was changed");
    }
    rows[name] = {dataset.tensor.type(), dataset.tensor.shape(), digest};
  }
  if (!sealed) return Seal::kUnsealed;
  if (content_sha256(rows, raw.config) != raw.content_sha256) {
    fail(path, "attribute content_sha256",
         "does not match: the config, or the name, type or shape of a dataset was changed, or one "
         "was "
         "added or removed");
  }
  return Seal::kSealed;
}

}  // namespace

std::string printable(const std::string& text) {
  std::string out;
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t length = utf8_length(text, i);
    if (length == 0 || is_control(text[i])) {
      out += '?';
      ++i;
    } else {
      out.append(text, i, length);
      i += length;
    }
  }
  return out;
}

bool is_hdf5(const std::string& path) {
  static constexpr std::array<char, 8> kSignature = {'\x89', 'H',  'D',    'F',
                                                     '\r',   '\n', '\x1a', '\n'};
  struct stat info {};
  if (stat(path.c_str(), &info) != 0 || !S_ISREG(info.st_mode)) return false;
  std::ifstream file(path, std::ios::binary);
  std::array<char, 8> start{};
  return file.read(start.data(), start.size()) && start == kSignature;
}

AttentionConfig GoldenFile::config() const {
  try {
    return parse_config(config_json);
  } catch (const Error& error) {
    throw Error(error.kind(), printable(path) + ": " + error.what(), error.field(), error.rule());
  }
}

GoldenFile read(const std::string& path) {
  const std::uint64_t file_bytes = regular_file_size(path);
  if (!is_hdf5(path)) fail(path, "", "is not an HDF5 file");
  RawFile raw = read_raw(path, file_bytes);
  check_texts(path, raw);

  GoldenFile file;
  file.path = path;
  file.seal = check_seal(path, raw);
  file.case_id = std::move(raw.case_id);
  file.config_json = std::move(raw.config);
  file.provenance_json = std::move(raw.provenance);
  file.content_sha256 = std::move(raw.content_sha256);
  for (auto& [name, dataset] : raw.datasets) {
    if (dataset.problem.empty()) {
      file.datasets[name] = std::move(dataset.tensor);
    } else if (is_known(name)) {
      fail(path, name, dataset.problem);
    }
  }
  return file;
}

}  // namespace attn::golden
