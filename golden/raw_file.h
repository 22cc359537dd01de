#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "reference/core/tensor.h"

namespace attn::golden {

/// A dataset as stored. `tensor` is absent when its type is none of the format's; `problem` says
/// why.
struct RawDataset {
  Tensor tensor;
  std::string sha256;  ///< the attribute, "" when there is none
  std::string problem;
};

/// What an HDF5 file says, before digests and config are checked.
struct RawFile {
  std::string case_id;
  std::string config;
  std::string provenance;
  std::string content_sha256;                  ///< "" when there is none
  std::map<std::string, RawDataset> datasets;  ///< by path without leading slash
};

inline constexpr char kFormatName[] = "attention-golden";

/// All datasets together may take this many times the file's length once decompressed; a contiguous
/// dataset takes its own size, so only compressed files can come near.
inline constexpr std::uint64_t kMaxExpansion = 64;

/// Reads an HDF5 file of `file_bytes` bytes. Throws Error(kInput). The HDF5 library crashes, hangs
/// and overruns buffers on damaged metadata (about 1 % of single bit flips), so it runs in a
/// process of its own, under limits of time and memory.
RawFile read_raw(const std::string& path, std::uint64_t file_bytes);

/// The same in this process. The caller holds an Hdf5Session. Nothing is allocated before its size
/// was checked against the file's length.
RawFile parse_hdf5(const std::string& path, std::uint64_t file_bytes);

/// Writes `content` to a new HDF5 file, whose bytes are a function of the content alone. Throws
/// Error(kUsage) when the disk is full or the place cannot be written.
void format_hdf5(const RawFile& content, const std::string& path);

/// `text` with control characters and invalid UTF-8 replaced by '?', so that a message stays one
/// line.
std::string printable(const std::string& text);

}  // namespace attn::golden
